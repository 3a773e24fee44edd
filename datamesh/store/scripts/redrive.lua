-- redrive: bring a dead letter back into its run, as if its values had never been tried.
--
-- Guarantee: the letter leaves `dead` and its values are addressed to their task again, together and once; what else the
-- run holds stays as it is. A repetition changes nothing. Runs also when memory is out, because it moves what is there.
--
-- KEYS  dead, run, windows
-- ARGV  plan prefix, run prefix, entry id of the letter
-- Returns  OK | ALREADY (there is no such letter any more) | GONE (the run is over, another one, or its task is done)
--          | FULL (the task has all the open values that the quota of the run allows)
env = {windows = KEYS[3], plans = ARGV[1], run_prefix = ARGV[2], now = now_ms()}
local entry = call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if not entry then return {'ALREADY'} end
local letter = {k = ''}
for k = 1, #entry[2], 2 do letter[entry[2][k]] = entry[2][k + 1] end
local node, values, flags = string.match(letter.m or '', '^(%d+) (%d+) %d+ (%S+)$')
if not node or not letter.l or not letter.v then return {'GONE'} end
local run, n = load(KEYS[2], node), math.max(1, tonumber(values))
if run.state ~= 'open' or run.id ~= letter.r or run.origin ~= letter.o then return {'GONE'} end
if counter(run, 'o:' .. node) == 0 then return {'GONE'} end
local most = quota_of(run).open_values
if most > 0 and counter(run, 'o:' .. node) + n > most then return {'FULL'} end

-- More becomes open and nothing is published: no task can be done by this, and no quota be passed.
check_node(run, node)
counter(run, 'x:' .. node)
call('XDEL', KEYS[1], ARGV[3])
add(run, 'x:' .. node, -math.min(n, counter(run, 'x:' .. node)))
add(run, 'o:' .. node, n)
put_first(run, node, {{values .. ' 1 ' .. flags, letter.l, letter.v, letter.k}})
commit(run)
return {'OK'}
