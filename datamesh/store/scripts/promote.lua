-- promote: deliver what has become due, at most 100 things: retries, and deadlines of runs.
--
-- Guarantee: each is delivered once; what belongs to a run that is over is dropped.
--
-- KEYS  windows, due, later, news, runs, ended
-- ARGV  plan prefix, run prefix
-- Returns  number promoted, ms until the next is due (-1: nothing)
env = {windows = KEYS[1], due = KEYS[2], later = KEYS[3], news = KEYS[4], runs = KEYS[5], ended = KEYS[6],
       plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local names = call('ZRANGEBYSCORE', env.due, '-inf', env.now, 'LIMIT', 0, 100)
for _, name in ipairs(names) do
  local body = call('HGET', env.later, name) or ''
  local kind, id, node, rest = string.match(body, '^(%S+) (%S+) (%S+)\n(.*)$')
  if kind then
    local run = load(env.run_prefix .. id)
    if run.state == 'open' and kind == 'retry' then
      add(run, 'r:' .. node, -1)
      deliver(run, node, unpack4(rest))
    elseif run.state == 'open' and kind == 'deadline' and not run.ending then
      run.ending = 'timeout'
    end
  end
  call('ZREM', env.due, name)
  call('HDEL', env.later, name)
end
for _, run in ipairs(order) do
  if run.state == 'open' then commit(run) end
end
local first = call('ZRANGE', env.due, 0, 0, 'WITHSCORES')
local due = -1
if first[2] then due = math.max(0, tonumber(first[2]) - env.now) end
return {#names, due}
