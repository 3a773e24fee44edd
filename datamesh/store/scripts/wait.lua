-- wait: record a run whose tasks nobody has announced yet, with its inputs, so that it starts when they appear.
--
-- Guarantee: recorded once, all of it or nothing; a repeated call is OK. Submit takes over from the state `waiting`.
--
-- KEYS  run, runs, waiting, then the staged inputs in order
-- ARGV  run id, origin, retention in ms, request (what submit needs later), indexes of streams that are read, level
-- Returns  OK | EXISTS state | GONE (something staged was lost)
local call = redis.call
local known = call('HMGET', KEYS[1], 'state', 'origin')
if known[1] then return {known[2] == ARGV[2] and 'OK' or 'EXISTS', known[1]} end
for k = 4, #KEYS do
  if call('EXISTS', KEYS[k]) == 0 then return {'GONE'} end
end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
call('HSET', KEYS[1], 'state', 'waiting', 'origin', ARGV[2], 'retention', ARGV[3], 'request', ARGV[4], 'taps', ARGV[5],
  'level', ARGV[6], 'inputs', #KEYS - 3, 'started', now)
for k = 4, #KEYS do
  call('RENAME', KEYS[k], KEYS[1] .. ':w:' .. (k - 4))
  call('PERSIST', KEYS[1] .. ':w:' .. (k - 4))
end
call('ZADD', KEYS[2], now, ARGV[1])
call('HSET', KEYS[3], ARGV[1], ARGV[4])
return {'OK', 'waiting'}
