-- graph: what every script that moves values shares; put in front of submit, push, settle, promote and end.
--
-- One table per run holds what this call has read and what it is about to change: counters are read together, changed here
-- and written together, frames for run streams are kept until it is known whether an end marker goes with the last of them.
--
-- A script that fails is not undone. So before its first write it looks at every key that it may write to: `check` fails
-- where something of another kind stands, and so does a plan that is gone. What follows cannot fail.
--
-- A frame on its way is {meta, lineages, values, mark}; meta is "<values> <attempt> <flags>".
-- In a work stream:  r "<run id> <origin>", p plan digest, m "<node> <meta>", l lineages, v values, k mark (only if there is one)
-- In a run stream:   n values, f flags, l lineages, v values; e end ("done" or a state), x failure
-- In a backlog:      the four parts of a frame with their lengths in front
local call = redis.call
local WINDOW, MOVES, UNIT = 16, 500, 32
local COUNTS = {hash = 'HLEN', list = 'LLEN', stream = 'XLEN', zset = 'ZCARD'}
local env = {}   -- windows, due, later, news, runs, ended, waiting, plans, run_prefix, now

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
    'o:' .. (node or ''), 'q:' .. (node or ''), 'blobs')
  run = {
    key = run_key, id = string.sub(run_key, #env.run_prefix + 1), state = h[1], digest = h[2], level = h[3] or '',
    listen = h[4], retention = tonumber(h[5] or 0), deadline = h[6], origin = h[7] or '', blobs = h[10],
    plan = h[2] and plan_of(h[2]),
    node = node, counters = {}, changed = {}, changes = {},
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

local windows = {}
local function window_of(work)
  if not windows[work] then windows[work] = tonumber(call('HGET', env.windows, work) or WINDOW) end
  return windows[work]
end

local function queue_of(run, node)
  if not run.queued[node] then
    run.queued[node] = counter(run, 'q:' .. node)
    run.waiting[node] = run.queued[node] == 0 and 0 or check('list', run.key .. ':b:' .. node)
  end
  return run.queued[node]
end

-- Frames may be put before a node.
local function check_node(run, node)
  local work = work_of(run, node)
  check('stream', work)
  check('list', run.key .. ':b:' .. node)
  window_of(work)
end

-- Frames may be published into a stream.
local function check_stream(run, stream)
  local route = route_of(run, stream)
  if route.tap then check('stream', run.key .. ':s:' .. stream) end
  for _, to in ipairs(route) do
    if to.mode == 'each' then check_node(run, to.node) end
  end
end

-- A waiting run has no plan yet.
local function taps_of(run)
  return words(run.digest and plan_field(run, 'taps') or call('HGET', run.key, 'taps'))
end

local function nodes_of(run)
  return run.digest and tonumber(plan_field(run, 'nodes')) or 0
end

local function check_timers()
  check('zset', env.due)
  check('hash', env.later)
end

-- The run may end, with its work done or before.
local function check_end(run, early)
  for _, stream in ipairs(taps_of(run)) do check('stream', run.key .. ':s:' .. stream) end
  if run.listen then check('stream', run.key .. ':events') end
  if run.deadline then check_timers() end
  check('zset', env.ended)
  if early then check('stream', env.news) end
end

-- A task may be done, and so anything that follows from it: tasks that wait are delivered, and the run may end.
local function check_run(run)
  if run.checked then return end
  run.checked = true
  check_end(run)
  for _, node in ipairs(words(plan_field(run, 'waits'))) do check_node(run, node) end
end

-- What a frame takes of the window: what waits behind it waits for its values, so they count and not it alone.
local function weight(values)
  return math.max(1, math.ceil(tonumber(values) / UNIT))
end

-- Put a frame into the node's work stream, past the window.
local function deliver(run, node, meta, lineages, values, mark)
  local work = work_of(run, node)
  run.queued[node] = queue_of(run, node) + weight(string.match(meta, '^%d+'))
  if mark == '' then
    call('XADD', work, '*', 'r', run.id .. ' ' .. run.origin, 'p', run.digest, 'm', node .. ' ' .. meta, 'l', lineages, 'v', values)
  else
    call('XADD', work, '*', 'r', run.id .. ' ' .. run.origin, 'p', run.digest, 'm', node .. ' ' .. meta, 'l', lineages, 'v', values, 'k', mark)
  end
end

-- Let frames of the backlog into the window.
local function move_up(run, node)
  local window, moved = window_of(work_of(run, node)), 0
  while queue_of(run, node) < window and run.waiting[node] > 0 and moved < MOVES do
    local most = math.min(math.ceil((window - run.queued[node]) / weight(256)), MOVES - moved)
    local items = call('LPOP', run.key .. ':b:' .. node, most)
    for _, item in ipairs(items) do deliver(run, node, unpack4(item)) end
    run.waiting[node], moved = run.waiting[node] - #items, moved + #items
  end
end

-- Put a frame where it belongs: into the window if there is room, else behind what waits already.
local function enqueue(run, node, meta, lineages, values)
  if queue_of(run, node) < window_of(work_of(run, node)) and run.waiting[node] == 0 then
    deliver(run, node, meta, lineages, values, '')
  else
    call('RPUSH', run.key .. ':b:' .. node, pack(meta, lineages, values, ''))
    run.waiting[node] = run.waiting[node] + 1
  end
end

-- Put frames that were on their way before ahead of all that waits: {meta, lineages, values, mark}, in order.
local function put_first(run, node, frames)
  local k, window = 1, window_of(work_of(run, node))
  while k <= #frames and queue_of(run, node) < window do
    deliver(run, node, unpack(frames[k]))
    k = k + 1
  end
  for rest = #frames, k, -1 do
    call('LPUSH', run.key .. ':b:' .. node, pack(unpack(frames[rest])))
    run.waiting[node] = run.waiting[node] + 1
  end
end

local function tap(run, stream)
  local kept = run.taps[stream]
  if not kept then
    kept = {}
    run.taps[stream] = kept
    run.tapped[#run.tapped + 1] = stream
  end
  return kept
end

-- Publish a frame of `n` values into a stream of the run: to its readers and to each task that takes single values.
local function publish(run, stream, n, flags, lineages, values)
  local route = route_of(run, stream)
  add(run, 'v:' .. stream, n)
  if route.tap then local kept = tap(run, stream); kept[#kept + 1] = {n, flags, lineages, values} end
  for _, to in ipairs(route) do
    if to.mode == 'each' then
      add(run, 'o:' .. to.node, n)
      enqueue(run, to.node, n .. ' 1 ' .. flags, lineages, values)
    end
  end
end

-- A stream has got its last value. `done` collects nodes whose last token this takes.
local function close(run, stream, done)
  local route = route_of(run, stream)
  run.closed[stream] = true
  if route.tap then tap(run, stream).closed = true end
  event(run, 'closed', stream, '')
  for _, to in ipairs(route) do
    if to.mode == 'wait' then
      if add(run, 'i:' .. to.node, -1) == 0 then deliver(run, to.node, '0 1 -', '', '', '') end
    elseif to.mode == 'each' then
      if add(run, 'o:' .. to.node, -1) == 0 then done[#done + 1] = to.node end
    end
  end
end

local function complete(run, node, done)
  event(run, 'done', node, '')
  for _, stream in ipairs(words(plan_field(run, 'n' .. node))) do
    if add(run, 'c:' .. stream, -1) == 0 then close(run, stream, done) end
  end
  if add(run, 'left', -1) == 0 and not run.ending then run.ending = 'done' end
end

-- Write what readers see; the end marker rides on the last frame of this call.
local function flush(run)
  for _, stream in ipairs(run.tapped) do
    local kept, key = run.taps[stream], run.key .. ':s:' .. stream
    for k, f in ipairs(kept) do
      if kept.closed and k == #kept then
        call('XADD', key, '*', 'n', f[1], 'f', f[2], 'l', f[3], 'v', f[4], 'e', 'done')
      else
        call('XADD', key, '*', 'n', f[1], 'f', f[2], 'l', f[3], 'v', f[4])
      end
    end
    if kept.closed and #kept == 0 then call('XADD', key, '*', 'n', 0, 'f', '-', 'l', '', 'v', '', 'e', 'done') end
  end
  run.taps, run.tapped = {}, {}
end

-- The run may take so long, from now on.
local function set_deadline(run, ms)
  run.deadline = env.now + ms
  local name = 'deadline ' .. run.id
  call('HSET', run.key, 'deadline', run.deadline)
  call('ZADD', env.due, run.deadline, name)
  call('HSET', env.later, name, 'deadline ' .. run.id .. ' 0 ' .. run.origin .. '\n')
end

-- The run waits no more: what was kept to start it goes.
local function forget_wait(run)
  call('HDEL', env.waiting, run.id)
  for k = 0, tonumber(call('HGET', run.key, 'inputs') or 0) - 1 do call('UNLINK', run.key .. ':w:' .. k) end
end

-- The run is over: nothing of it outlives its retention.
local function finish(run, state, failure)
  if run.state == 'waiting' then forget_wait(run) end
  run.state = state
  call('HSET', run.key, 'state', state, 'ended', env.now)
  if failure ~= '' then call('HSET', run.key, 'failure', failure) end
  if run.deadline then
    call('ZREM', env.due, 'deadline ' .. run.id)
    call('HDEL', env.later, 'deadline ' .. run.id)
  end
  for _, stream in ipairs(taps_of(run)) do
    -- Also a run that is done may have an open input, if nobody needed the rest of it.
    if not run.closed[stream] and (not run.digest or counter(run, 'c:' .. stream) > 0) then
      call('XADD', run.key .. ':s:' .. stream, '*', 'n', 0, 'f', '-', 'l', '', 'v', '', 'e', state, 'x', failure)
    end
    call('PEXPIRE', run.key .. ':s:' .. stream, run.retention)
  end
  if state ~= 'done' then
    for node = 0, nodes_of(run) - 1 do call('UNLINK', run.key .. ':b:' .. node) end
    call('XADD', env.news, 'MAXLEN', '~', 1000, '*', 'kind', 'ended', 'run', run.id)
    call('PEXPIRE', env.news, 3600000)
  end
  if run.listen then
    event(run, state, run.id, '')
    call('PEXPIRE', run.key .. ':events', run.retention)
  end
  if run.blobs then call('PEXPIRE', run.key .. ':blobs', run.retention) end
  call('PEXPIRE', run.key, run.retention)
  call('ZADD', env.ended, env.now + run.retention, run.id)
end

-- Write what this call has changed of a run. Every check was made before.
local function commit(run)
  local done, list = {}, {}
  for _, field in ipairs(run.changes) do
    if run.counters[field] == 0 and string.sub(field, 1, 2) == 'o:' then done[#done + 1] = string.sub(field, 3) end
  end
  for _, stream in ipairs(run.shut) do
    put(run, 'c:' .. stream, 0)
    close(run, stream, done)
  end
  while #done > 0 do complete(run, table.remove(done), done) end
  for node, n in pairs(run.queued) do put(run, 'q:' .. node, n) end
  for _, field in ipairs(run.changes) do
    list[#list + 1], list[#list + 2] = field, string.format('%d', run.counters[field])
  end
  for k = 1, #list, 100 do call('HSET', run.key, unpack(list, k, math.min(k + 99, #list))) end
  flush(run)
  if run.ending then finish(run, run.ending, run.failure or '') end
end
