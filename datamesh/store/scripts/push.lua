-- push: add frames to an open input of a run, or close it.
--
-- Guarantee: frames of one call appear together, once: a writer numbers its calls, a repeated number is ALREADY.
--
-- KEYS  run, windows, pressure, due, later, news, runs, ended
-- ARGV  plan prefix, run prefix, stream, writer, number of the call, close (0 or 1),
--         origin of the run as the last reply told it ('' before the first),
--         number of frames, then each: values, flags, values
-- Writers in several processes may share an input, so the place of a value in it, its lineage, is given here.
-- Returns  status (OK, ALREADY, GONE, CLOSED, WAITING), whether a task that it fed is full (1 or 0): then the writer waits
--          until the news say that there is room; origin of the run
env = {windows = KEYS[2], pressure = KEYS[3], due = KEYS[4], later = KEYS[5], news = KEYS[6], runs = KEYS[7],
       ended = KEYS[8], plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local run, stream = load(KEYS[1]), ARGV[3]
local writer = 'p:' .. stream .. ':' .. ARGV[4]
prefetch(run, {writer, 'c:' .. stream, 'v:' .. stream})
-- A run of the same id that was started since is another one.
if ARGV[7] ~= '' and run.origin ~= ARGV[7] then return {'GONE', 0, ARGV[7]} end
if counter(run, writer) >= tonumber(ARGV[5]) then return {'ALREADY', 0, run.origin} end
if run.state == 'waiting' then return {'WAITING', 0, run.origin} end
if run.state ~= 'open' then return {'GONE', 0, run.origin} end
if counter(run, 'c:' .. stream) == 0 then return {'CLOSED', 0, run.origin} end

-- One segment [first, n] as MessagePack: an array of one array of two unsigned integers, of 64 and of 32 bits.
local function span(first, n)
  local bytes = {}
  for k = 8, 1, -1 do bytes[k] = first % 256; first = math.floor(first / 256) end
  return '\145\146\207' .. string.char(unpack(bytes)) .. string.char(206, 0, 0, math.floor(n / 256), n % 256)
end

local bytes = 0
for k = 0, tonumber(ARGV[8]) - 1 do bytes = bytes + 32 + #ARGV[11 + 3 * k] end
check_stream(run, stream)
check_pressure(run, stream)
check_quota(run, bytes, 0)
check_room(run)
if ARGV[6] == '1' then check_run(run) end
call('HSET', run.key, writer, ARGV[5])
local place = counter(run, 'v:' .. stream)
for k = 0, tonumber(ARGV[8]) - 1 do
  local a = 9 + 3 * k
  local n = tonumber(ARGV[a])
  publish(run, stream, n, ARGV[a + 1], span(place, n), ARGV[a + 2])
  place = place + n
end
if ARGV[6] == '1' then run.shut[1] = stream end
local is_full = tonumber(ARGV[8]) > 0 and note_fed(run, stream) or 0
commit(run)
return {'OK', is_full, run.origin}
