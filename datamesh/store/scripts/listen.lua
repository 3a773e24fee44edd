-- listen: from now on keep facts about a run for people to read.
--
-- Guarantee: every fact from here on is kept, the end of the run too; it makes no key. Runs also when memory is out.
--
-- KEYS  run
-- Returns  UNKNOWN | OK, state
local call = redis.call
local h = call('HMGET', KEYS[1], 'state', 'listen')
if not h[1] then return {'UNKNOWN'} end
if not h[2] and (h[1] == 'open' or h[1] == 'waiting') then
  call('HDEL', KEYS[1], '')   -- a first write that is allowed when memory is out; those that follow then are too
  call('HSET', KEYS[1], 'listen', 1)
end
return {'OK', h[1]}
