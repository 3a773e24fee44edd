-- join: become a member, with a fresh id, and announce what it serves.
--
-- Guarantee: from here on entries that this member takes stay its own until its deadline. Work streams have their group.
-- Consumers that hold entries and belong to no member are noted as orphans. Runs also when memory is out.
--
-- KEYS  members, services, windows, pressure, orphans, then the work streams that the member reads
-- ARGV  member, lease in ms, former id ('' if none), announcement ("slots text": first word is the number of slots),
--         then for each work stream its high and low mark ("high low"), or '' for the default
-- Returns  OK
local call, WATCH = redis.call, 60000
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

-- Before the first write, because a script that fails is not undone: is everything of the kind that it should be?
call('HLEN', KEYS[2])
call('HLEN', KEYS[3])
call('HLEN', KEYS[4])
call('ZCARD', KEYS[5])
for k = 6, #KEYS do call('XLEN', KEYS[k]) end

call('ZREM', KEYS[1], '')   -- a first write that is allowed when memory is out; those that follow then are too
call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
if ARGV[3] ~= '' and call('ZREM', KEYS[1], ARGV[3]) == 1 then
  call('HDEL', KEYS[2], ARGV[3])
  call('ZADD', KEYS[5], now + WATCH, ARGV[3])   -- a read that it left behind may still be handed an entry
end
local names = {}
for k = 6, #KEYS do
  redis.pcall('XGROUP', 'CREATE', KEYS[k], 'g', '0', 'MKSTREAM')
  names[#names + 1] = KEYS[k]
  for _, c in ipairs(call('XINFO', 'CONSUMERS', KEYS[k], 'g')) do
    if c[4] > 0 and not call('ZSCORE', KEYS[1], c[2]) then call('ZADD', KEYS[5], 'NX', now, c[2] .. ' ' .. KEYS[k]) end
  end
  local marks = ARGV[k - 1] or ''
  if marks == '' then call('HDEL', KEYS[4], KEYS[k]) else call('HSET', KEYS[4], KEYS[k], marks) end
end
call('HSET', KEYS[2], ARGV[1], ARGV[4] .. '\n' .. table.concat(names, ' '))

-- The window of a task is twice the slots announced for it; scripts read 16 where nothing stands.
local slots = {}
for _, text in ipairs(call('HVALS', KEYS[2])) do
  local n, streams = string.match(text, '^(%d+)[^\n]*\n(.*)$')
  for work in string.gmatch(streams or '', '%S+') do slots[work] = (slots[work] or 0) + tonumber(n) end
end
call('DEL', KEYS[3])
for work, n in pairs(slots) do
  if 2 * n > 16 then call('HSET', KEYS[3], work, 2 * n) end
end
for k = 1, 4 do call('PEXPIRE', KEYS[k], 3600000) end
return {'OK'}
