-- wait: record a run whose tasks nobody has announced yet, with its inputs, so that it starts when they appear.
--
-- Guarantee: recorded once, all of it or nothing; a repeated call is OK. Submit takes over from the state `waiting`.
-- Refused when memory is out.
--
-- KEYS  run, due, later, news, runs, ended, waiting, then the staged inputs in order
-- ARGV  plan prefix, run prefix, origin, retention in ms, request (what submit needs later), indexes of streams that are
--         read, level, deadline in ms from now (0: none)
-- Returns  OK | EXISTS state | GONE (something staged was lost)
env = {due = KEYS[2], later = KEYS[3], news = KEYS[4], runs = KEYS[5], ended = KEYS[6], waiting = KEYS[7],
       plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local run = load(KEYS[1])
if run.state then return {run.origin == ARGV[3] and 'OK' or 'EXISTS', run.state} end
for k = 8, #KEYS do
  if call('EXISTS', KEYS[k]) == 0 then return {'GONE'} end
end
check('zset', env.runs)
check('zset', env.ended)
check('hash', env.waiting)
check_timers()
call('HSET', run.key, 'state', 'waiting', 'origin', ARGV[3], 'retention', ARGV[4], 'request', ARGV[5], 'taps', ARGV[6],
  'level', ARGV[7], 'inputs', #KEYS - 7, 'started', env.now)
for k = 8, #KEYS do
  local key = run.key .. ':w:' .. (k - 8)
  call('RENAME', KEYS[k], key)
  call('PERSIST', key)
end
if call('EXISTS', run.key .. ':blobs') == 1 then
  call('PERSIST', run.key .. ':blobs')
  call('HSET', run.key, 'blobs', 1)
end
call('ZADD', env.runs, env.now, run.id)
call('ZREM', env.ended, run.id)   -- of an earlier run of this id
call('HSET', env.waiting, run.id, ARGV[5])
run.origin = ARGV[3]
if tonumber(ARGV[8]) > 0 then set_deadline(run, tonumber(ARGV[8])) end
return {'OK', 'waiting'}
