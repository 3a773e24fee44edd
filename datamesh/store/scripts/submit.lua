-- submit: record a run, publish its inputs, close the complete ones, deliver its stream tasks.
--
-- Guarantee: a run id is recorded once; all of the run appears or nothing. Refused when memory is out. May be repeated.
--
-- KEYS  run, plan, windows, due, later, news, runs, ended, waiting
-- ARGV  plan prefix, run prefix, run id, digest, retention in ms, level, deadline in ms from now (0: none),
--         origin (a token of the caller, so that its own repetition is told from somebody else's run),
--         number of run fields, then each: field, value
--         number of staged,     then each: kind (s or b), index, staged key, values, frames
--         number of frames,     then each: stream, values, flags, lineages, values
--         number of complete inputs, then each: stream
--         number of deliveries, then each: node
-- Returns  OK | EXISTS state digest | NOPLAN | GONE (something staged was lost)
local run_key, plan_key = KEYS[1], KEYS[2]
env = {windows = KEYS[3], due = KEYS[4], later = KEYS[5], news = KEYS[6], runs = KEYS[7], ended = KEYS[8],
       plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local known = call('HMGET', run_key, 'state', 'plan', 'origin')
if known[1] and known[1] ~= 'waiting' then
  return {known[3] == ARGV[8] and 'OK' or 'EXISTS', known[1], known[2]}
end
if call('EXISTS', plan_key) == 0 then return {'NOPLAN'} end

local at = 9
local function rows(width)
  local n, first = tonumber(ARGV[at]), at + 1
  at = first + n * width
  return first, first + (n - 1) * width
end
local f1, f2 = rows(2)
local s1, s2 = rows(5)
for k = s1, s2, 5 do
  if call('EXISTS', ARGV[k + 2]) == 0 then return {'GONE'} end
end

call('HSET', run_key, 'state', 'open', 'plan', ARGV[4], 'level', ARGV[6], 'retention', ARGV[5], 'origin', ARGV[8],
  'started', env.now)
for k = f1, f2, 100 do call('HSET', run_key, unpack(ARGV, k, math.min(k + 99, f2 + 1))) end
call('PERSIST', run_key)
call('PERSIST', run_key .. ':blobs')
call('PEXPIRE', plan_key, 2592000000)
call('ZADD', env.runs, env.now, ARGV[3])
call('HDEL', KEYS[9], ARGV[3])
if tonumber(ARGV[7]) > 0 then
  call('HSET', run_key, 'deadline', env.now + tonumber(ARGV[7]))
  call('ZADD', env.due, env.now + tonumber(ARGV[7]), 'deadline ' .. ARGV[3])
  call('HSET', env.later, 'deadline ' .. ARGV[3], 'deadline ' .. ARGV[3] .. ' 0\n')
end

local run = load(run_key)
for k = s1, s2, 5 do
  local kind, index, n = ARGV[k], ARGV[k + 1], tonumber(ARGV[k + 3])
  local key = run_key .. ':' .. kind .. ':' .. index
  call('RENAME', ARGV[k + 2], key)
  call('PERSIST', key)
  if kind == 's' then
    add(run, 'v:' .. index, n)
  else
    add(run, 'o:' .. index, n)
    run.queued[index], run.waiting[index] = 0, tonumber(ARGV[k + 4])
    move_up(run, index)
  end
end
f1, f2 = rows(5)
for k = f1, f2, 5 do publish(run, ARGV[k], tonumber(ARGV[k + 1]), ARGV[k + 2], ARGV[k + 3], ARGV[k + 4]) end
f1, f2 = rows(1)
for k = f1, f2 do
  call('HSET', run_key, 'c:' .. ARGV[k], 0)
  for _, to in ipairs(route_of(run, ARGV[k])) do
    if to.mode == 'each' then add(run, 'o:' .. to.node, -1) end
    if to.mode == 'wait' then
      if call('HINCRBY', run_key, 'i:' .. to.node, -1) == 0 then deliver(run, to.node, '0 1 -', '', '', '') end
    end
  end
  if route_of(run, ARGV[k]).tap then tap(run, ARGV[k]).closed = true end
end
f1, f2 = rows(1)
for k = f1, f2 do deliver(run, ARGV[k], '0 1 -', '', '', '') end
commit(run)
return {'OK', run.state, ARGV[4]}
