-- reap: remove members past their deadline and take over entries that belong to no member.
--
-- Guarantee: a member's entries are never taken while it is one; from its removal on it is fenced. A consumer is deleted
-- only when it is seen to hold nothing. At most `slots` entries are taken. Runs also when memory is out.
--
-- Orphans are of two kinds: "member work-stream" while that consumer holds entries, and "member" for a while after its
-- removal, because a blocking read that it left behind may still be handed an entry. While there are any, those who serve
-- the streams call this with each beat, and find such consumers by looking at all of a stream.
--
-- The server counts how often an entry was handed on, which stands for the deaths of its holders. A member whose process
-- lives, because it was stopped or cut off, has not died: it is named by who knows, and what it held is not counted.
--
-- KEYS  members, services, windows, orphans, marks, frozen, then the work streams that the caller serves
-- ARGV  member, free slots, then each member that is known to live
-- Returns  FENCED | OK, then for each entry: work stream, id, holders that have died, mark ('' if none), fields
local call = redis.call
local WATCH, MOST_MEMBERS, MOST_ELSEWHERE = 60000, 20, 100
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local deadline = call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) < now then return {'FENCED'} end

-- Before the first write, because a script that fails is not undone: is everything of the kind that it should be?
call('HLEN', KEYS[2])
call('HLEN', KEYS[3])
call('ZCARD', KEYS[4])
call('HLEN', KEYS[5])
local mine = {}   -- work stream -> its consumers
call('HLEN', KEYS[6])
for k = 7, #KEYS do
  local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[k], 'g')
  if not found.err then mine[KEYS[k]] = found end
end

-- Entries that the group has handed to a consumer; none if there is no such stream any more.
local function pending(work, member, most)
  local found = redis.pcall('XPENDING', work, 'g', '-', '+', most, member)
  return found.err and {} or found
end

local function remove(member)
  local n, streams = string.match(call('HGET', KEYS[2], member) or '', '^(%d+)[^\n]*\n(.*)$')
  call('ZREM', KEYS[1], member)
  call('HDEL', KEYS[2], member)
  call('ZADD', KEYS[4], now + WATCH, member)
  for work in string.gmatch(streams or '', '%S+') do
    if #pending(work, member, 1) > 0 then call('ZADD', KEYS[4], now, member .. ' ' .. work) end
    local window = tonumber(call('HGET', KEYS[3], work) or 0)
    if window > 0 then call('HSET', KEYS[3], work, math.max(16, window - 2 * tonumber(n))) end
  end
end

local reply, slots = {'OK'}, tonumber(ARGV[2])

-- Take an entry, and count that its holder has died only if it has.
local function claim(work, member, pending_entry)
  local claimed
  if call('HEXISTS', KEYS[6], member) == 1 then
    claimed = call('XCLAIM', work, 'g', ARGV[1], 0, pending_entry[1], 'RETRYCOUNT', pending_entry[4])
  else
    claimed = call('XCLAIM', work, 'g', ARGV[1], 0, pending_entry[1])
  end
  return claimed[1]
end

local function take_over(work, member)
  if slots <= 0 then return end
  for _, p in ipairs(pending(work, member, slots)) do
    local entry = claim(work, member, p)
    if entry then
      slots = slots - 1
      local n, deaths = #reply, p[4] - call('HEXISTS', KEYS[6], member)
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 5] = work, entry[1], deaths, entry[2]
      reply[n + 4] = call('HGET', KEYS[5], work .. ' ' .. entry[1]) or ''
    end
  end
end

call('ZREM', KEYS[4], '')   -- a first write that is allowed when memory is out; those that follow then are too
for k = 3, #ARGV do
  local until_ms = call('ZSCORE', KEYS[1], ARGV[k])
  if until_ms and tonumber(until_ms) < now then
    call('HSET', KEYS[6], ARGV[k], now)
    call('PEXPIRE', KEYS[6], 3600000)
  end
end
for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, MOST_MEMBERS)) do remove(member) end
for work, consumers in pairs(mine) do
  for _, c in ipairs(consumers) do
    if not call('ZSCORE', KEYS[1], c[2]) then
      if c[4] > 0 then
        call('ZADD', KEYS[4], 'NX', now, c[2] .. ' ' .. work)
      else
        call('XGROUP', 'DELCONSUMER', work, 'g', c[2])
      end
    end
  end
end
local elsewhere = 0
local orphans = call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
for k = 1, #orphans, 2 do
  local member, work = string.match(orphans[k], '^(%S+) ?(%S*)$')
  if work == '' then
    if tonumber(orphans[k + 1]) <= now then call('ZREM', KEYS[4], orphans[k]) end
  elseif mine[work] or elsewhere < MOST_ELSEWHERE then
    if mine[work] then take_over(work, member) else elsewhere = elsewhere + 1 end
    if #pending(work, member, 1) == 0 then
      redis.pcall('XGROUP', 'DELCONSUMER', work, 'g', member)
      call('ZREM', KEYS[4], orphans[k])
    end
  end
end
return reply
