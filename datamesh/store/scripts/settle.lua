-- settle: for many deliveries at once, end them or bring them forward.
--
-- Guarantee: exactly one attempt of a delivery is settled. Its acknowledgement, outputs, counters, retries and the ends
-- of streams that follow appear together. A caller that is no member changes nothing. The same call may be repeated.
-- Runs also when memory is out, because it frees some.
--
-- KEYS  members, windows, pressure, marks, due, later, dead, news, runs, ended
-- ARGV  member, plan prefix, run prefix, number of items, then for each item:
--         work stream, entry id, values of the entry, run key, origin, node, step, last step, mark,
--         done, skipped, buried, most values that one invocation has given, failure ('' or what ends the run),
--         number of frames,    then each: stream, values, flags, lineages, values
--         number of retries,   then each: delay in ms, meta, lineages, values, mark
--         number given back,   then each: meta, lineages, values, mark
--         number of buried,    then each: meta, lineages, values, reason, mark
--       step 0 ends the delivery; step k > 0 is its k-th advance and leaves it with this member, with `mark` kept.
--       The last step is the one that its owner was told of. If the store knows of another, it has lost writes, and what
--       was published with them: the owner is FENCED, and its successor repeats from what the store knows.
--       The origin tells this run from an earlier one of the same id, whose deliveries may still be met.
--       An advance that feeds a task over its high mark is told that it is full: go on when the news say that there is room.
-- Returns  FENCED, or for each item: status (OK, ALREADY, GONE, FENCED, UNKNOWN: there is no such run, and the entry
--          stays, to be buried), whether a task that it fed is full (1 or 0)
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
env = {windows = KEYS[2], pressure = KEYS[3], due = KEYS[5], later = KEYS[6], news = KEYS[8], runs = KEYS[9],
       ended = KEYS[10], plans = ARGV[2], run_prefix = ARGV[3], now = now_ms()}
local marks, dead = KEYS[4], KEYS[7]
local at = 5

local function take(n)
  at = at + n
  return unpack(ARGV, at - n, at - 1)
end

local function rows(width)
  local n, first = tonumber(ARGV[at]), at + 1
  at = first + n * width
  return {n = n, first = first, last = at - width}
end

local function read_item()
  local item, run_key = {}, nil
  item.work, item.id, item.values, run_key, item.origin, item.node, item.step, item.last, item.mark = take(9)
  item.finished, item.skipped, item.buried, item.fan_out, item.failure = take(5)
  item.finished, item.skipped, item.buried = tonumber(item.finished), tonumber(item.skipped), tonumber(item.buried)
  item.fan_out = tonumber(item.fan_out)
  item.run, item.step, item.terminal = load(run_key, item.node), tonumber(item.step), item.finished + item.skipped + item.buried
  item.frames, item.retries, item.returned, item.dead = rows(5), rows(5), rows(4), rows(5)
  return item
end

-- Counters that the item will change.
local function needed(item, is_last)
  local run, fields = item.run, {}
  if item.finished > 0 then fields[1] = 'd:' .. item.node end
  for k = item.frames.first, item.frames.last, 5 do
    fields[#fields + 1] = 'v:' .. ARGV[k]
    for _, to in ipairs(route_of(run, ARGV[k])) do
      if to.mode == 'each' then fields[#fields + 1], fields[#fields + 2] = 'o:' .. to.node, 'q:' .. to.node end
    end
  end
  if is_last then
    fields[#fields + 1] = 'left'
    for _, stream in ipairs(words(plan_field(run, 'n' .. item.node))) do fields[#fields + 1] = 'c:' .. stream end
  end
  return fields
end

-- Look at all that the item may write to; `left` has what will be left open of each task.
local function check_item(item, left)
  local run, node = item.run, item.node
  check('stream', item.work)
  check('hash', marks)
  if run.state ~= 'open' or run.origin ~= item.origin then return end
  check_node(run, node)
  local bytes = 0
  for k = item.frames.first, item.frames.last, 5 do
    check_stream(run, ARGV[k])
    bytes = bytes + #ARGV[k + 3] + #ARGV[k + 4]
    if item.step > 0 then check_pressure(run, ARGV[k]) end
  end
  check_quota(run, bytes, item.fan_out)
  check_room(run)
  if item.retries.n > 0 then check_timers() end
  if item.dead.n > 0 then check('stream', dead) end
  local task = run.key .. ' ' .. node
  left[task] = (left[task] or counter(run, 'o:' .. node)) - item.terminal
  prefetch(run, needed(item, left[task] <= 0))
  if item.failure ~= '' then check_end(run, true) end
  if item.failure ~= '' or left[task] <= 0 then check_run(run) end
end

-- Held by the caller, or by anybody: XACK does not look at whose an entry is.
local function is_held(item, ...)
  local held = redis.pcall('XPENDING', item.work, 'g', item.id, item.id, 1, ...)
  return not held.err and #held > 0
end

-- May this item be applied? Ends or keeps the delivery accordingly.
local function admit(item)
  local run, field = item.run, item.work .. ' ' .. item.id
  local alive = run.state == 'open' and run.origin == item.origin
  local kept = tonumber(string.match(call('HGET', marks, field) or '0', '^%d+'))
  if item.step == 0 then
    if not run.state and is_held(item) then return 'UNKNOWN' end
    if alive and kept ~= tonumber(item.last) and is_held(item) then return 'FENCED' end
    if call('XACK', item.work, 'g', item.id) == 0 then return 'ALREADY' end
    call('XDEL', item.work, item.id)
    if kept > 0 then call('HDEL', marks, field) end
    return alive and 'OK' or 'GONE'
  end
  if not alive then return 'GONE' end
  if kept >= item.step then return 'ALREADY' end
  if kept ~= tonumber(item.last) then return 'FENCED' end
  if not is_held(item, ARGV[1]) then return 'GONE' end
  call('HDEL', marks, '')   -- a first write that is allowed when memory is out; those that follow then are too
  call('HSET', marks, field, item.step .. ' ' .. item.mark)
  return 'OK'
end

local function publish_all(item)
  item.fed = {}
  item.run.fan_out = math.max(item.run.fan_out or 0, item.fan_out)
  for k = item.frames.first, item.frames.last, 5 do
    publish(item.run, ARGV[k], tonumber(ARGV[k + 1]), ARGV[k + 2], ARGV[k + 3], ARGV[k + 4])
    item.fed[ARGV[k]] = true
  end
end

local function schedule(item)
  local run, place = item.run, 0
  for k = item.retries.first, item.retries.last, 5 do
    local name = item.work .. ' ' .. item.id .. ' ' .. item.step .. ' ' .. place
    call('ZADD', env.due, env.now + tonumber(ARGV[k]), name)
    call('HSET', env.later, name, 'retry ' .. run.id .. ' ' .. item.node .. ' ' .. run.origin .. '\n'
      .. pack(ARGV[k + 1], ARGV[k + 2], ARGV[k + 3], ARGV[k + 4]))
    place = place + 1
  end
  if place > 0 then add(run, 'r:' .. item.node, place) end
end

local function give_back(item)
  local frames = {}
  for k = item.returned.first, item.returned.last, 4 do
    frames[#frames + 1] = {ARGV[k], ARGV[k + 1], ARGV[k + 2], ARGV[k + 3]}
  end
  put_first(item.run, item.node, frames)
end

local function bury(item)
  local run = item.run
  for k = item.dead.first, item.dead.last, 5 do
    call('XADD', dead, 'MAXLEN', '~', 100000, '*', 'r', run.id, 'o', run.origin, 'p', run.digest,
      'm', item.node .. ' ' .. ARGV[k], 'l', ARGV[k + 1], 'v', ARGV[k + 2], 'x', ARGV[k + 3], 'k', ARGV[k + 4])
  end
end

local function count(item)
  local run, node = item.run, item.node
  if item.finished > 0 then add(run, 'd:' .. node, item.finished) end
  if item.skipped > 0 then add(run, 'k:' .. node, item.skipped) end
  if item.buried > 0 then add(run, 'x:' .. node, item.buried) end
  if item.terminal > 0 then add(run, 'o:' .. node, -item.terminal) end
  if item.failure ~= '' and not run.ending then
    run.ending, run.failure = 'failed', item.failure
    add(run, 'f:' .. node, 1)
  end
end

local function apply(item)
  local run, node = item.run, item.node
  if item.step == 0 then
    run.queued[node] = queue_of(run, node) - weight(item.values)
    run.freed = run.freed or {}
    run.freed[node] = true
  end
  publish_all(item)
  schedule(item)
  if item.returned.n > 0 then give_back(item) end
  bury(item)
  count(item)
end

local items, left = {}, {}
for k = 1, tonumber(ARGV[4]) do
  items[k] = read_item()
  check_item(items[k], left)
end

for _, item in ipairs(items) do
  item.status = admit(item)
  if item.status == 'OK' then apply(item) end
end

-- Only who goes on has to wait.
local answer = {}
for k, item in ipairs(items) do
  local is_full = 0
  for stream in pairs(item.step > 0 and item.fed or {}) do is_full = math.max(is_full, note_fed(item.run, stream)) end
  answer[2 * k - 1], answer[2 * k] = item.status, is_full
end
for _, run in ipairs(order) do
  if run.state == 'open' then
    for node in pairs(run.freed or {}) do move_up(run, node) end
    commit(run)
  end
end
return answer
