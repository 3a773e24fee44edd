-- beat: stay a member for another lease, and hear what there is to do.
--
-- Guarantee: a member that was removed is told so and changes nothing. Runs also when memory is out.
--
-- KEYS  members, services, windows, pressure, orphans, due
-- ARGV  member, lease in ms
-- Returns  FENCED | OK, members past their deadline, orphans, ms until something is due (-1: nothing)
local call = redis.call
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local orphans, first = call('ZCARD', KEYS[5]), call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')
local due = -1
if first[2] then due = math.max(0, tonumber(first[2]) - now) end
call('ZREM', KEYS[1], '')   -- a first write that is allowed when memory is out; those that follow then are too
call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
for k = 1, 4 do call('PEXPIRE', KEYS[k], 3600000) end
return {'OK', call('ZCOUNT', KEYS[1], '-inf', '(' .. now), orphans, due}
