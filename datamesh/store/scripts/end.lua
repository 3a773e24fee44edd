-- end: end a run before its work is done: cancelled, failed or out of time.
--
-- Guarantee: the state, the reason at the end of every stream that was still open and the end of the run appear together;
-- from then on nothing of the run settles. Runs also when memory is out.
--
-- KEYS  run, news, runs, ended, waiting, due, later
-- ARGV  plan prefix, run prefix, state, failure
-- Returns  OK | ALREADY state | UNKNOWN
env = {news = KEYS[2], runs = KEYS[3], ended = KEYS[4], waiting = KEYS[5], due = KEYS[6], later = KEYS[7],
       plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local run = load(KEYS[1])
if not run.state then return {'UNKNOWN'} end
if run.state ~= 'open' and run.state ~= 'waiting' then return {'ALREADY', run.state} end
check_end(run, true)
call('HDEL', env.waiting, '')
finish(run, ARGV[3], ARGV[4])
return {'OK', run.state}
