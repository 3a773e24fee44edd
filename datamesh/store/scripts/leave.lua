-- leave: stop being a member; what it still holds may be taken by others at once.
--
-- KEYS  members, services, windows, orphans
-- ARGV  member
-- Returns  OK | ALREADY
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local text = call('HGET', KEYS[2], ARGV[1])
call('HLEN', KEYS[3])
call('ZCARD', KEYS[4])
if call('ZREM', KEYS[1], ARGV[1]) == 0 then return {'ALREADY'} end
call('HDEL', KEYS[2], ARGV[1])
local n, streams = string.match(text or '', '^(%d+)[^\n]*\n(.*)$')
for work in string.gmatch(streams or '', '%S+') do
  local held = redis.pcall('XPENDING', work, 'g', '-', '+', 1, ARGV[1])
  if not held.err and #held > 0 then call('ZADD', KEYS[4], now, ARGV[1] .. ' ' .. work) end
  local window = tonumber(call('HGET', KEYS[3], work) or 0)
  if window > 0 then call('HSET', KEYS[3], work, math.max(16, window - 2 * tonumber(n))) end
end
return {'OK'}
