-- take: take entries from several work streams without waiting, never more in all than there are free slots.
--
-- Guarantee: COUNT of a plain read is for each stream; here it is for all together. Streams come in the order given.
-- An error of one stream never hides what others gave: it is told when nothing was taken before.
--
-- KEYS  members, then work streams
-- ARGV  member, most entries in all, then the most for each stream
-- Returns  FENCED | OK, then for each entry: work stream, id, fields
local call = redis.call
if not call('ZSCORE', KEYS[1], ARGV[1]) then return {'FENCED'} end
local reply, left = {'OK'}, tonumber(ARGV[2])
for k = 2, #KEYS do
  if left <= 0 then break end
  local n = math.min(left, tonumber(ARGV[k + 1]))
  local got = n > 0 and redis.pcall('XREADGROUP', 'GROUP', 'g', ARGV[1], 'COUNT', n, 'STREAMS', KEYS[k], '>')
  if got and got.err then
    if #reply == 1 then return got end
    break
  end
  -- A Redis in memory leaves out the list around a single stream, and answers an empty one for nothing.
  local rows = got and got[1] and (type(got[1]) == 'table' and got[1][2] or got[2]) or {}
  for _, entry in ipairs(rows) do
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = KEYS[k], entry[1], entry[2]
    left = left - 1
  end
end
return reply
