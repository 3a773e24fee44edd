-- blob: keep large values of a run beside it; frames carry their digest.
--
-- Guarantee: kept as long as the run, and counted in its bytes; nothing is kept for a run that is over. May be repeated.
--
-- KEYS  blobs of the run, run
-- ARGV  digest, body, ...
-- Returns  OK | GONE
local call = redis.call
local state = call('HGET', KEYS[2], 'state')
if state and state ~= 'open' and state ~= 'waiting' then return {'GONE'} end
local bytes = 0
for k = 1, #ARGV, 2 do
  if call('HSET', KEYS[1], ARGV[k], ARGV[k + 1]) == 1 then bytes = bytes + #ARGV[k + 1] end
end
if state then
  call('HSET', KEYS[2], 'blobs', 1)
  call('HINCRBY', KEYS[2], 'bytes', bytes)
else
  call('PEXPIRE', KEYS[1], 60000)
end
return {'OK'}
