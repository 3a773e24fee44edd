-- push: add frames to an open input of a run, or close it.
--
-- Guarantee: frames of one call appear together, once: a writer numbers its calls, a repeated number is ALREADY.
--
-- KEYS  run, windows, due, later, news, runs, ended
-- ARGV  plan prefix, run prefix, stream, writer, number of the call, close (0 or 1),
--         number of frames, then each: values, flags, values
-- Writers in several processes may share an input, so the place of a value in it, its lineage, is given here.
-- Returns  status (OK, ALREADY, GONE, CLOSED, WAITING), open values of the fullest task that it fed
env = {windows = KEYS[2], due = KEYS[3], later = KEYS[4], news = KEYS[5], runs = KEYS[6], ended = KEYS[7],
       plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local run, stream = load(KEYS[1]), ARGV[3]
local writer = 'p:' .. stream .. ':' .. ARGV[4]
prefetch(run, {writer, 'c:' .. stream, 'v:' .. stream})
if counter(run, writer) >= tonumber(ARGV[5]) then return {'ALREADY', 0} end
if run.state == 'waiting' then return {'WAITING', 0} end
if run.state ~= 'open' then return {'GONE', 0} end
if counter(run, 'c:' .. stream) == 0 then return {'CLOSED', 0} end

-- One segment [first, n] as MessagePack: an array of one array of two unsigned integers, of 64 and of 32 bits.
local function span(first, n)
  local bytes = {}
  for k = 8, 1, -1 do bytes[k] = first % 256; first = math.floor(first / 256) end
  return '\145\146\207' .. string.char(unpack(bytes)) .. string.char(206, 0, 0, math.floor(n / 256), n % 256)
end

check_stream(run, stream)
if ARGV[6] == '1' then check_run(run) end
call('HSET', run.key, writer, ARGV[5])
local place = counter(run, 'v:' .. stream)
for k = 0, tonumber(ARGV[7]) - 1 do
  local a = 8 + 3 * k
  local n = tonumber(ARGV[a])
  publish(run, stream, n, ARGV[a + 1], span(place, n), ARGV[a + 2])
  place = place + n
end
if ARGV[6] == '1' then run.shut[1] = stream end
commit(run)
local most = 0
for _, to in ipairs(route_of(run, stream)) do
  if to.mode == 'each' then most = math.max(most, counter(run, 'o:' .. to.node)) end
end
return {'OK', most}
