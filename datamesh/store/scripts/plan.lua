-- plan: write a bound plan, once for all its runs.
--
-- KEYS  plan
-- ARGV  field, value, ...
-- Returns  OK
for k = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[k], ARGV[k + 1]) end
redis.call('PEXPIRE', KEYS[1], 2592000000)
return {'OK'}
