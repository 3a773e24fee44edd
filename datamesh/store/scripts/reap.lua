-- reap: remove members past their deadline and take over entries that belong to no member.
--
-- Guarantee: a member's entries are never taken while it is one; from its removal on it is fenced. A consumer is deleted
-- only when it is seen to hold nothing. At most `slots` entries are taken. Runs also when memory is out.
--
-- A blocking read that a member left behind may still be handed an entry after its removal. So its streams stay noted for
-- longer than any read blocks, and consumers that nobody noted are looked for in the streams that the caller serves.
--
-- KEYS  members, services, windows, orphans, marks, then the work streams that the caller serves
-- ARGV  member, free slots
-- Returns  FENCED | OK, then for each entry: work stream, id, times delivered, mark ('' if none), fields
local call = redis.call
local WATCH, MOST = 15000, 500
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local deadline = call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) < now then return {'FENCED'} end

-- Before the first write, because a script that fails is not undone: is everything of the kind that it should be?
call('HLEN', KEYS[2])
call('HLEN', KEYS[3])
call('ZCARD', KEYS[4])
call('HLEN', KEYS[5])
local mine, consumers = {}, {}
for k = 6, #KEYS do
  local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[k], 'g')
  if not found.err then mine[KEYS[k]], consumers[KEYS[k]] = true, found end
end

call('ZREM', KEYS[4], '')   -- a first write that is allowed when memory is out; those that follow then are too
for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 100)) do
  local n, streams = string.match(call('HGET', KEYS[2], member) or '', '^(%d+)[^\n]*\n(.*)$')
  call('ZREM', KEYS[1], member)
  call('HDEL', KEYS[2], member)
  for work in string.gmatch(streams or '', '%S+') do
    call('ZADD', KEYS[4], now + WATCH, member .. ' ' .. work)
    local window = tonumber(call('HGET', KEYS[3], work) or 0)
    if window > 0 then call('HSET', KEYS[3], work, math.max(16, window - 2 * tonumber(n))) end
  end
end
for work, found in pairs(consumers) do
  for _, c in ipairs(found) do
    if not call('ZSCORE', KEYS[1], c[2]) then call('ZADD', KEYS[4], 'NX', now, c[2] .. ' ' .. work) end
  end
end

-- Entries that the group has handed to a consumer; none if there is no such stream any more.
local function pending(work, member, most)
  local found = redis.pcall('XPENDING', work, 'g', '-', '+', most, member)
  return found.err and {} or found
end

local reply, slots, seen = {'OK'}, tonumber(ARGV[2]), 0

local function take_over(work, member)
  for _, p in ipairs(pending(work, member, slots)) do
    local entry = call('XCLAIM', work, 'g', ARGV[1], 0, p[1])[1]
    if entry then
      slots = slots - 1
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 5] = work, entry[1], p[4], entry[2]
      reply[n + 4] = call('HGET', KEYS[5], work .. ' ' .. entry[1]) or ''
    end
  end
end

local orphans = call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
for k = 1, #orphans, 2 do
  local member, work = string.match(orphans[k], '^(%S+) (%S+)$')
  if seen >= MOST then break end
  if call('ZSCORE', KEYS[1], member) then
    call('ZREM', KEYS[4], orphans[k])
  else
    seen = seen + 1
    if mine[work] and slots > 0 then take_over(work, member) end
    if #pending(work, member, 1) == 0 then
      redis.pcall('XGROUP', 'DELCONSUMER', work, 'g', member)
      if tonumber(orphans[k + 1]) <= now then call('ZREM', KEYS[4], orphans[k]) end
    end
  end
end
return reply
