-- beat: stay a member for another lease, and hear what there is to do.
--
-- Guarantee: a member that was removed is told so and changes nothing.
--
-- KEYS  members, services, windows, orphans, due
-- ARGV  member, lease in ms
-- Returns  FENCED | OK, members past their deadline, orphans, ms until something is due (-1: nothing)
local call = redis.call
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
for k = 1, 3 do call('PEXPIRE', KEYS[k], 3600000) end
local first = call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
local due = -1
if first[2] then due = math.max(0, tonumber(first[2]) - now) end
return {'OK', call('ZCOUNT', KEYS[1], '-inf', now), call('SCARD', KEYS[4]), due}
