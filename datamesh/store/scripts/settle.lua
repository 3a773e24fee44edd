-- settle: for many deliveries at once, end them or bring them forward.
--
-- Guarantee: exactly one attempt of a delivery is settled. Its acknowledgement, outputs, counters, retries and the ends
-- of streams that follow appear together. A caller that is no member changes nothing. The same call may be repeated.
--
-- KEYS  members, windows, marks, due, later, dead, news, runs, ended
-- ARGV  member, plan prefix, run prefix, number of items, then for each item:
--         work stream, entry id, run key, node, step, mark,
--         done, skipped, buried, failure ('' or the failure that ends the run),
--         number of frames,    then each: stream, values, flags, lineages, values
--         number of retries,   then each: delay in ms, meta, lineages, values, mark
--         number given back,   then each: meta, lineages, values, mark
--         number of buried,    then each: meta, lineages, values, reason
--       step 0 ends the delivery; step k > 0 is its k-th advance and leaves it with this member, with `mark` kept.
-- Returns  FENCED, or for each item: status (OK, ALREADY, GONE), open values of the fullest task that it fed
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
env = {windows = KEYS[2], due = KEYS[4], later = KEYS[5], news = KEYS[7], runs = KEYS[8], ended = KEYS[9],
       plans = ARGV[2], run_prefix = ARGV[3], now = now_ms()}
local marks, dead = KEYS[3], KEYS[6]
local at = 5
local reply = {}

local function take(n)
  at = at + n
  return unpack(ARGV, at - n, at - 1)
end

local function rows(width)
  local n = tonumber(take(1))
  local first = at
  at = at + n * width
  return n, first
end

-- May this item be applied? Ends or keeps the delivery accordingly.
local function admit(run, work, id, step, mark)
  local field = work .. ' ' .. id
  if step == 0 then
    if call('XACK', work, 'g', id) == 0 then return 'ALREADY' end
    call('XDEL', work, id)
    call('HDEL', marks, field)
    if run.state == 'open' then return 'OK' end
    return 'GONE'
  end
  if run.state ~= 'open' then return 'GONE' end
  local kept = call('HGET', marks, field)
  if kept and tonumber(string.match(kept, '^%d+')) >= step then return 'ALREADY' end
  if #call('XPENDING', work, 'g', id, id, 1, ARGV[1]) == 0 then return 'GONE' end
  call('HSET', marks, field, step .. ' ' .. mark)
  return 'OK'
end

for item = 1, tonumber(ARGV[4]) do
  local work, id, run_key, node, step, mark = take(6)
  local finished, skipped, buried, failure = take(4)
  step = tonumber(step)
  local run = load(run_key)
  local status = admit(run, work, id, step, mark)
  local ok = status == 'OK'
  local fed = {}

  local n, first = rows(5)
  if ok then
    for k = first, first + 5 * (n - 1), 5 do
      publish(run, ARGV[k], tonumber(ARGV[k + 1]), ARGV[k + 2], ARGV[k + 3], ARGV[k + 4])
      fed[ARGV[k]] = true
    end
  end
  n, first = rows(5)
  if ok then
    for k = 0, n - 1 do
      local a, name = first + 5 * k, work .. ' ' .. id .. ' ' .. step .. ' ' .. k
      call('ZADD', env.due, env.now + tonumber(ARGV[a]), name)
      call('HSET', env.later, name, 'retry ' .. run.id .. ' ' .. node .. '\n'
        .. pack(ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]))
    end
    if n > 0 then add(run, 'r:' .. node, n) end
  end
  n, first = rows(4)
  if ok then
    for k = first, first + 4 * (n - 1), 4 do deliver(run, node, ARGV[k], ARGV[k + 1], ARGV[k + 2], ARGV[k + 3]) end
  end
  n, first = rows(4)
  if ok then
    for k = first, first + 4 * (n - 1), 4 do
      call('XADD', dead, 'MAXLEN', '~', 100000, '*', 'r', run.id, 'p', run.digest, 'm', node .. ' ' .. ARGV[k],
        'l', ARGV[k + 1], 'v', ARGV[k + 2], 'x', ARGV[k + 3])
    end
    finished, skipped, buried = tonumber(finished), tonumber(skipped), tonumber(buried)
    if finished > 0 then add(run, 'd:' .. node, finished) end
    if skipped > 0 then add(run, 'k:' .. node, skipped) end
    if buried > 0 then add(run, 'x:' .. node, buried) end
    add(run, 'o:' .. node, -(finished + skipped + buried))
    if step == 0 then
      queue_of(run, node)
      run.queued[node] = run.queued[node] - 1
      run.freed = run.freed or {}
      run.freed[node] = true
    end
    if failure ~= '' and not run.ending then
      run.ending, run.failure = 'failed', failure
      add(run, 'f:' .. node, 1)
    end
  end
  reply[#reply + 1] = {status, run, fed}
end

for _, run in ipairs(order) do
  if run.state == 'open' then
    for node in pairs(run.freed or {}) do move_up(run, node) end
    commit(run)
  end
end

local answer = {}
for k, r in ipairs(reply) do
  local most = 0
  if r[1] == 'OK' then
    for stream in pairs(r[3]) do
      for _, to in ipairs(route_of(r[2], stream)) do
        if to.mode == 'each' then most = math.max(most, tonumber(call('HGET', r[2].key, 'o:' .. to.node) or 0)) end
      end
    end
  end
  answer[2 * k - 1], answer[2 * k] = r[1], most
end
return answer
