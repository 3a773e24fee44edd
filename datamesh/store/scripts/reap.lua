-- reap: remove members past their deadline and take over entries that belong to no member.
--
-- Guarantee: a member's entries are never taken while it is one; from its removal on it is fenced. A consumer is deleted
-- only when it is seen to hold nothing. At most `slots` entries are taken.
--
-- KEYS  members, services, windows, orphans, marks, then the work streams that the caller serves
-- ARGV  member, free slots
-- Returns  FENCED | OK, then for each entry: work stream, id, times delivered, mark ('' if none), fields
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local deadline = call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) < now then return {'FENCED'} end
for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, 100)) do
  local n, streams = string.match(call('HGET', KEYS[2], member) or '', '^(%d+)[^\n]*\n(.*)$')
  call('ZREM', KEYS[1], member)
  call('HDEL', KEYS[2], member)
  for work in string.gmatch(streams or '', '%S+') do
    call('SADD', KEYS[4], member .. ' ' .. work)
    local window = tonumber(call('HGET', KEYS[3], work) or 0)
    if window > 0 then call('HSET', KEYS[3], work, math.max(16, window - 2 * tonumber(n))) end
  end
end
local mine = {}
for k = 6, #KEYS do mine[KEYS[k]] = true end
local reply, slots = {'OK'}, tonumber(ARGV[2])
for _, orphan in ipairs(call('SMEMBERS', KEYS[4])) do
  local member, work = string.match(orphan, '^(%S+) (%S+)$')
  if call('ZSCORE', KEYS[1], member) then
    call('SREM', KEYS[4], orphan)
  elseif mine[work] and slots > 0 then
    local pending = call('XPENDING', work, 'g', '-', '+', slots, member)
    for _, p in ipairs(pending) do
      local entry = call('XCLAIM', work, 'g', ARGV[1], 0, p[1])[1]
      if entry then
        slots = slots - 1
        local n = #reply
        reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 5] = work, entry[1], p[4], entry[2]
        reply[n + 4] = call('HGET', KEYS[5], work .. ' ' .. entry[1]) or ''
      end
    end
    if #call('XPENDING', work, 'g', '-', '+', 1, member) == 0 then
      call('XGROUP', 'DELCONSUMER', work, 'g', member)
      call('SREM', KEYS[4], orphan)
    end
  end
end
return reply
