-- state: what scripts that move values know of runs and plans; put in front of graph, and so of submit, push, settle, ...
--
-- One table per run holds what this call has read and what it is about to change: counters are read together, changed here
-- and written together, frames for run streams are kept until it is known whether an end marker goes with the last of them.
--
-- A script that fails is not undone. So before its first write it looks at every key that it may write to: `check` fails
-- where something of another kind stands, and so does a plan that is gone. What follows cannot fail.
local call = redis.call
local WINDOW, MOVES, UNIT, HIGH, LOW = 16, 500, 32, 10000, 5000
local COUNTS = {hash = 'HLEN', list = 'LLEN', stream = 'XLEN', zset = 'ZCARD'}
local env = {}   -- windows, pressure, due, later, news, runs, ended, waiting, plans, run_prefix, now

local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function words(text)
  local list = {}
  for word in string.gmatch(text or '', '%S+') do list[#list + 1] = word end
  return list
end

local function pack(meta, lineages, values, mark)
  return #meta .. ' ' .. #lineages .. ' ' .. #values .. ' ' .. #mark .. '\n' .. meta .. lineages .. values .. mark
end

local function unpack4(text)
  local a, b, c, d, at = string.match(text, '^(%d+) (%d+) (%d+) (%d+)\n()')
  local m, l, v = at + a, at + a + b, at + a + b + c
  return string.sub(text, at, m - 1), string.sub(text, m, l - 1), string.sub(text, l, v - 1), string.sub(text, v, v + d - 1)
end

local checked = {}   -- key -> how much it held before the first write
local function check(kind, key)
  if not checked[key] then checked[key] = call(COUNTS[kind], key) end
  return checked[key]
end

local plans = {}   -- digest -> what was read of a plan, for all its runs
local function plan_of(digest)
  if not plans[digest] then plans[digest] = {key = env.plans .. digest, routes = {}} end
  return plans[digest]
end

local touched, order = {}, {}

-- Read a run; if one knows already that it is about a node, with the open values and queued frames of that.
local function load(run_key, node)
  local run = touched[run_key]
  if run then return run end
  local h = call('HMGET', run_key, 'state', 'plan', 'level', 'listen', 'retention', 'deadline', 'origin',
    'o:' .. (node or ''), 'q:' .. (node or ''), 'blobs', 'quota', 'bytes', 'full')
  run = {
    key = run_key, id = string.sub(run_key, #env.run_prefix + 1), state = h[1], digest = h[2], level = h[3] or '',
    listen = h[4], retention = tonumber(h[5] or 0), deadline = h[6], origin = h[7] or '', blobs = h[10],
    plan = h[2] and plan_of(h[2]),
    node = node, counters = {bytes = tonumber(h[12] or 0), full = tonumber(h[13] or 0)}, changed = {}, changes = {},
    quota = h[11],
    queued = {}, waiting = {}, taps = {}, tapped = {}, shut = {}, closed = {},
  }
  if node then run.counters['o:' .. node], run.counters['q:' .. node] = tonumber(h[8] or 0), tonumber(h[9] or 0) end
  touched[run_key] = run
  order[#order + 1] = run
  return run
end

-- Read counters that will be needed, at once.
local function prefetch(run, fields)
  local missing = {}
  for _, field in ipairs(fields) do
    if not run.counters[field] then missing[#missing + 1] = field end
  end
  if #missing == 0 or run.is_new then return end
  for k, n in ipairs(call('HMGET', run.key, unpack(missing))) do run.counters[missing[k]] = tonumber(n or 0) end
end

local function counter(run, field)
  if not run.counters[field] then
    run.counters[field] = run.is_new and 0 or tonumber(call('HGET', run.key, field) or 0)
  end
  return run.counters[field]
end

local function put(run, field, n)
  if not run.changed[field] then
    run.changed[field] = true
    run.changes[#run.changes + 1] = field
  end
  run.counters[field] = n
end

local function add(run, field, n)
  n = counter(run, field) + n
  put(run, field, n)
  return n
end

local function event(run, kind, subject, text)
  if run.listen then
    call('XADD', run.key .. ':events', 'MAXLEN', '~', 10000, '*', 'kind', kind, 'subject', subject, 'text', text)
  end
end

-- Read all of a plan that is small, and of a larger one how it is as a whole; false if there is none.
local function read_plan(plan)
  if plan.is_known == nil then
    local all, taps, nodes, waits = unpack(call('HMGET', plan.key, 'all', 'taps', 'nodes', 'waits'))
    plan.is_known, plan.fields = taps and true or false, {taps = taps, nodes = nodes, waits = waits}
    for name, text in string.gmatch(all or '', '(%S+) ([^\n]*)\n') do plan.fields[name] = text end
  end
  return plan.is_known
end

local function plan_field(run, field)
  local plan = run.plan
  if read_plan(plan) and not plan.fields[field] then plan.fields[field] = call('HGET', plan.key, field) end
  if not plan.fields[field] then error('the plan of run ' .. run.id .. ' is gone') end
  return plan.fields[field]
end

local function work_of(run, node)
  return plan_field(run, 'w' .. node) .. run.level
end

local function route_of(run, stream)
  local route = run.plan.routes[stream]
  if route then return route end
  route = {}
  local list = words(plan_field(run, 's' .. stream))
  route.tap = list[1] == '1'
  for k = 2, #list, 2 do route[#route + 1] = {node = list[k], mode = list[k + 1]} end
  run.plan.routes[stream] = route
  return route
end

local windows, marks_of = {}, {}
local function window_of(work)
  if not windows[work] then windows[work] = tonumber(call('HGET', env.windows, work) or WINDOW) end
  return windows[work]
end

-- Values open at a task above which those that feed it wait, and below which they go on.
local function pressure_of(run, node)
  local work = work_of(run, node)
  if not marks_of[work] then
    local high, low = string.match(call('HGET', env.pressure, work) or '', '^(%d+) (%d+)$')
    marks_of[work] = {high = tonumber(high or HIGH), low = tonumber(low or LOW)}
  end
  return marks_of[work]
end

-- What a run may have: bytes, open values of a task, values that one invocation gives. 0: no limit.
local function quota_of(run)
  if not run.limits then
    local bytes, open, fan_out = string.match(run.quota or '', '^(%d+) (%d+) (%d+)$')
    run.limits = {bytes = tonumber(bytes or 0), open_values = tonumber(open or 0), fan_out = tonumber(fan_out or 0)}
  end
  return run.limits
end
