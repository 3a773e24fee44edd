-- promote: deliver what has become due, at most 100 things: retries, what was put off, and deadlines of runs.
--
-- Guarantee: each is delivered once; what belongs to a run that is over is dropped. Runs also when memory is out.
--
-- KEYS  windows, due, later, news, runs, ended, waiting
-- ARGV  plan prefix, run prefix
-- Returns  number promoted, ms until the next is due (-1: nothing)
env = {windows = KEYS[1], due = KEYS[2], later = KEYS[3], news = KEYS[4], runs = KEYS[5], ended = KEYS[6],
       waiting = KEYS[7], plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}

local parked = {}   -- work stream, fields of an entry

local function read_parked(work, text)
  local fields, at = {}, 1
  while at <= #text do
    local size, first = string.match(text, '^(%d+) ()', at)
    fields[#fields + 1] = string.sub(text, first, first + size - 1)
    at = first + size
  end
  check('stream', work)
  if #fields > 0 and #fields % 2 == 0 then parked[#parked + 1] = {work = work, fields = fields} end
end

-- Read what is due under a name, and look at all that it may write to. Only a retry is returned.
local function read_due(name)
  local kind, id, node, origin, frame = string.match(call('HGET', env.later, name) or '', '^(%S+) (%S+) (%S+) (%S*)\n(.*)$')
  if not kind then return end
  if kind == 'parked' then return read_parked(id, frame) end
  local run = load(env.run_prefix .. id)
  if run.origin ~= origin then return end
  if kind == 'deadline' and (run.state == 'open' or run.state == 'waiting') then
    check_end(run, true)
    check('hash', env.waiting)
    run.ending = 'timeout'
  elseif kind == 'retry' and run.state == 'open' then
    check_node(run, node)
    return {run = run, node = node, frame = frame}
  end
end

local names, retries = call('ZRANGEBYSCORE', env.due, '-inf', env.now, 'LIMIT', 0, 100), {}
for _, name in ipairs(names) do retries[#retries + 1] = read_due(name) end

for _, name in ipairs(names) do
  call('ZREM', env.due, name)
  call('HDEL', env.later, name)
end
for _, entry in ipairs(parked) do call('XADD', entry.work, '*', unpack(entry.fields)) end
for _, retry in ipairs(retries) do
  add(retry.run, 'r:' .. retry.node, -1)
  put_first(retry.run, retry.node, {{unpack4(retry.frame)}})
end
for _, run in ipairs(order) do
  if run.state == 'open' or run.ending then commit(run) end
end
local first = call('ZRANGE', env.due, 0, 0, 'WITHSCORES')
local due = -1
if first[2] then due = math.max(0, tonumber(first[2]) - env.now) end
return {#names, due}
