-- discard: take an entry out of a work stream that cannot be read, or that belongs to nothing any more; or put it off.
--
-- Guarantee: the entry leaves the work stream and appears in `dead`, with the reason and what could be read, or in `later`,
-- in one step, once. Only who holds it may do so. Runs also when memory is out.
--
-- KEYS  members, work stream, marks, due, later, dead
-- ARGV  member, entry id, reason, raw fields (bounded), delay in ms (0: bury it; else it comes back then, as it is)
-- Returns  OK | ALREADY | FENCED
local call = redis.call
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
call('XLEN', KEYS[2])
call('HLEN', KEYS[3])
call('ZCARD', KEYS[4])
call('HLEN', KEYS[5])
call('XLEN', KEYS[6])
local found = redis.pcall('XPENDING', KEYS[2], 'g', ARGV[2], ARGV[2], 1, ARGV[1])
if found.err or #found == 0 then return {'ALREADY'} end
local entry = call('XRANGE', KEYS[2], ARGV[2], ARGV[2])[1]
call('XACK', KEYS[2], 'g', ARGV[2])
call('XDEL', KEYS[2], ARGV[2])
call('HDEL', KEYS[3], KEYS[2] .. ' ' .. ARGV[2])
if tonumber(ARGV[5]) == 0 or not entry or #entry[2] > 200 then
  call('XADD', KEYS[6], 'MAXLEN', '~', 100000, '*', 'w', KEYS[2], 'x', ARGV[3], 'raw', ARGV[4])
else
  local t, parts = call('TIME'), {}
  for k, part in ipairs(entry[2]) do parts[k] = #part .. ' ' .. part end
  local name = KEYS[2] .. ' ' .. ARGV[2] .. ' parked'
  call('ZADD', KEYS[4], t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[5]), name)
  call('HSET', KEYS[5], name, 'parked ' .. KEYS[2] .. ' 0 0\n' .. table.concat(parts))
end
return {'OK'}
