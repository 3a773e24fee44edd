-- graph: how values move; put in front of submit, push, settle, promote and end, behind state.
--
-- A frame on its way is {meta, lineages, values, mark}; meta is "<values> <attempt> <flags>".
-- In a work stream:  r "<run id> <origin>", p plan digest, m "<node> <meta>", l lineages, v values, k mark (only if there is one)
-- In a run stream:   n values, f flags, l lineages, v values; e end ("done" or a state), x failure
-- In a backlog:      the four parts of a frame with their lengths in front
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

-- What feeds from this stream may turn out to be full.
local function check_pressure(run, stream)
  for _, to in ipairs(route_of(run, stream)) do
    if to.mode == 'each' then
      pressure_of(run, to.node)
      counter(run, 'y:' .. to.node)
    end
  end
end

-- So much more will be published, by an invocation that has given `fan_out` values: the run may end for want of quota.
local function check_quota(run, bytes, fan_out)
  local limits = quota_of(run)
  run.expected = (run.expected or counter(run, 'bytes')) + bytes
  if (limits.bytes > 0 and run.expected > limits.bytes) or limits.open_values > 0
    or (limits.fan_out > 0 and fan_out > limits.fan_out) then
    check_end(run, true)
  end
end

-- Somebody may have to be told that there is room again.
local function check_room(run)
  if counter(run, 'full') > 0 then check('stream', env.news) end
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
  add(run, 'bytes', #lineages + #values)
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

-- Tasks that a stream feeds and that are over their high mark are noted as full: who feeds them waits until they are not.
local function note_fed(run, stream)
  local is_full = 0
  for _, to in ipairs(route_of(run, stream)) do
    local marks, noted = pressure_of(run, to.node), counter(run, 'y:' .. to.node)
    -- One of what is open is the input itself, which brings more.
    if to.mode == 'each' and counter(run, 'o:' .. to.node) - 1 > (noted > 0 and noted - 1 or marks.high) then
      is_full = 1
      if noted == 0 then
        put(run, 'y:' .. to.node, marks.low + 1)
        add(run, 'full', 1)
      end
    end
  end
  return is_full
end

-- Tasks that have caught up are full no more; when none is, those who wait are told.
local function make_room(run)
  if counter(run, 'full') == 0 then return end
  for _, field in ipairs(run.changes) do
    local node = string.match(field, '^o:(%d+)$')
    local low = node and counter(run, 'y:' .. node) or 0
    if low > 0 and run.counters[field] <= low then
      put(run, 'y:' .. node, 0)
      add(run, 'full', -1)
      call('XADD', env.news, 'MAXLEN', '~', 1000, '*', 'kind', 'room', 'run', run.id)
      call('PEXPIRE', env.news, 3600000)
    end
  end
end

-- The run has more than it may have: it fails, and its readers are told of what.
local function enforce(run)
  local limits, over, found = quota_of(run), nil, 0
  if limits.bytes > 0 and counter(run, 'bytes') > limits.bytes then over, found = 'bytes', counter(run, 'bytes') end
  if limits.fan_out > 0 and (run.fan_out or 0) > limits.fan_out then over, found = 'fan_out', run.fan_out end
  for _, field in ipairs(limits.open_values > 0 and run.changes or {}) do
    if string.sub(field, 1, 2) == 'o:' and run.counters[field] > limits.open_values then
      over, found = 'open_values', run.counters[field]
    end
  end
  if over and not run.ending then
    run.ending = 'failed'
    run.failure = 'quota ' .. over .. ' ' .. string.format('%d', limits[over]) .. ' ' .. string.format('%d', found)
  end
end

-- Write what this call has changed of a run. Every check was made before.
local function commit(run)
  local done, list = {}, {}
  enforce(run)
  make_room(run)
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
