-- recover: everything that a member holds, after replies were lost in which entries were handed to it.
--
-- Guarantee: changes nothing but to forget entries that do not exist any more.
--
-- KEYS  members, marks, then the work streams that the member reads
-- ARGV  member
-- Returns  FENCED | OK, then for each entry (at most 1000 of a stream): work stream, id, times that others have held it,
--          mark ('' if none), fields
local call = redis.call
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
call('HLEN', KEYS[2])
local reply = {'OK'}
for k = 3, #KEYS do
  local found = redis.pcall('XPENDING', KEYS[k], 'g', '-', '+', 1000, ARGV[1])
  for _, p in ipairs(found.err and {} or found) do
    local entry = call('XRANGE', KEYS[k], p[1], p[1])[1]
    if entry then
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 5] = KEYS[k], p[1], p[4] - 1, entry[2]
      reply[n + 4] = call('HGET', KEYS[2], KEYS[k] .. ' ' .. p[1]) or ''
    else
      call('XACK', KEYS[k], 'g', p[1])
    end
  end
end
return reply
