-- submit: record a run, publish its inputs, close the complete ones, deliver its stream tasks.
--
-- Guarantee: a run id is recorded once; all of the run appears or nothing. Refused when memory is out. May be repeated.
--
-- KEYS  run, plan, windows, due, later, news, runs, ended, waiting
-- ARGV  plan prefix, run prefix, run id, digest, retention in ms, level, deadline in ms from now (0: none),
--         origin (a token of the caller, so that its own repetition is told from somebody else's run), quota,
--         number of run fields, then each: field, value
--         number of staged,     then each: kind (s or b), index, staged key, values, frames
--         number of frames,     then each: stream, values, flags, lineages, values
--         number of complete inputs, then each: stream
--         number of deliveries, then each: node
-- Returns  OK | EXISTS state digest | NOPLAN | GONE (something staged was lost)
local run_key, plan_key = KEYS[1], KEYS[2]
env = {windows = KEYS[3], due = KEYS[4], later = KEYS[5], news = KEYS[6], runs = KEYS[7], ended = KEYS[8],
       waiting = KEYS[9], plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local run = load(run_key)
local known = run.state
if known and known ~= 'waiting' then
  return {run.origin == ARGV[8] and 'OK' or 'EXISTS', known, run.digest or ''}
end
local plan = plan_of(ARGV[4])
if not read_plan(plan) then return {'NOPLAN'} end

local at = 10
local function rows(width)
  local n, first = tonumber(ARGV[at]), at + 1
  at = first + n * width
  return first, at - width
end
local field1, field2 = rows(2)
local staged1, staged2 = rows(5)
local frame1, frame2 = rows(5)
local input1, input2 = rows(1)
local node1, node2 = rows(1)

for k = staged1, staged2, 5 do
  if call(ARGV[k] == 's' and 'XLEN' or 'LLEN', ARGV[k + 2]) ~= tonumber(ARGV[k + 4]) then return {'GONE'} end
end
local large = call('EXISTS', run_key .. ':blobs') == 1
for k = frame1, frame2, 5 do
  if ARGV[k + 2] == 'b' and not large then return {'GONE'} end
end
run.state, run.digest, run.level, run.retention, run.origin = 'open', ARGV[4], ARGV[6], tonumber(ARGV[5]), ARGV[8]
run.plan, run.is_new, run.blobs, run.quota = plan, true, large, ARGV[9]
check_run(run)
for k = frame1, frame2, 5 do
  check_stream(run, ARGV[k])
  check_quota(run, #ARGV[k + 3] + #ARGV[k + 4], 0)
end
for k = input1, input2 do check_stream(run, ARGV[k]) end
for k = staged1, staged2, 5 do
  if ARGV[k] == 'b' then check_node(run, ARGV[k + 1]) end
end
for k = node1, node2 do check_node(run, ARGV[k]) end
if tonumber(ARGV[7]) > 0 then check_timers() end
check('zset', env.runs)
check('hash', env.waiting)

call('HSET', run_key, 'state', 'open', 'plan', ARGV[4], 'level', ARGV[6], 'retention', ARGV[5], 'origin', ARGV[8],
  'started', env.now, 'quota', ARGV[9])
for k = field1, field2, 2 do
  -- What was counted while it waited for its tasks stays counted.
  local before = ARGV[k] == 'bytes' and counter(run, 'bytes') or 0
  put(run, ARGV[k], before + tonumber(ARGV[k + 1]))
end
if large then
  call('PERSIST', run_key .. ':blobs')
  call('HSET', run_key, 'blobs', 1)
end
call('PEXPIRE', plan_key, 2592000000)
call('ZADD', env.runs, env.now, ARGV[3])
call('ZREM', env.ended, ARGV[3])   -- of an earlier run of this id
-- The time that a run has waited for its tasks counts.
if tonumber(ARGV[7]) > 0 and not run.deadline then set_deadline(run, tonumber(ARGV[7])) end

for k = staged1, staged2, 5 do
  local kind, index, n, frames = ARGV[k], ARGV[k + 1], tonumber(ARGV[k + 3]), tonumber(ARGV[k + 4])
  if frames > 0 then
    local key = run_key .. ':' .. kind .. ':' .. index
    call('RENAME', ARGV[k + 2], key)
    call('PERSIST', key)
  end
  if kind == 's' then
    add(run, 'v:' .. index, n)
  else
    add(run, 'o:' .. index, n)
    run.queued[index], run.waiting[index] = 0, frames
    move_up(run, index)
  end
end
if known then forget_wait(run) end
for k = frame1, frame2, 5 do
  publish(run, ARGV[k], tonumber(ARGV[k + 1]), ARGV[k + 2], ARGV[k + 3], ARGV[k + 4])
end
for k = input1, input2 do run.shut[#run.shut + 1] = ARGV[k] end
for k = node1, node2 do deliver(run, ARGV[k], '0 1 -', '', '', '') end
commit(run)
return {'OK', run.state, ARGV[4]}
