-- sweep: forget runs whose retention is over; their own keys have expired by themselves.
--
-- KEYS  runs, ended
-- Returns  number of runs forgotten (at most 500)
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ids = call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 500)
for _, id in ipairs(ids) do
  call('ZREM', KEYS[1], id)
  call('ZREM', KEYS[2], id)
end
return #ids
