-- stage: bring in a part of a large input before its run is recorded.
--
-- Guarantee: invisible until submit renames it; gone after a minute without a further part; a repeated number is ALREADY.
-- Parts come in order; GONE, and nothing is written, if those before were lost. Refused when memory is out.
--
-- KEYS  staging counter, staged key
-- ARGV  kind (s or b), number of this part, number of frames, then each: values, flags, lineages, values
-- Returns  OK | ALREADY | GONE
local call = redis.call
local last, number = tonumber(call('GET', KEYS[1]) or 0), tonumber(ARGV[2])
call(ARGV[1] == 's' and 'XLEN' or 'LLEN', KEYS[2])
if last >= number then return {'ALREADY'} end
if last ~= number - 1 then return {'GONE'} end
call('SET', KEYS[1], ARGV[2], 'PX', 60000)
for k = 0, tonumber(ARGV[3]) - 1 do
  local n, flags, lineages, values = ARGV[4 + 4 * k], ARGV[5 + 4 * k], ARGV[6 + 4 * k], ARGV[7 + 4 * k]
  if ARGV[1] == 's' then
    call('XADD', KEYS[2], '*', 'n', n, 'f', flags, 'l', lineages, 'v', values)
  else
    local meta = n .. ' 1 ' .. flags
    call('RPUSH', KEYS[2], #meta .. ' ' .. #lineages .. ' ' .. #values .. ' 0\n' .. meta .. lineages .. values)
  end
end
call('PEXPIRE', KEYS[2], 60000)
return {'OK'}
