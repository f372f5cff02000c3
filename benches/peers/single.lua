-- The baseline of the Redis figures: one purchase a call, as one would write it by hand for EVALSHA. It makes the checks of
-- Penstock's library in the same order (replay and fingerprint, gate and epoch, window by server time, buyer limit, stock) and
-- leaves behind what a purchase must leave: counters, request, order, buyer's units, stream entry. It leaves out what the
-- library does beyond that (the marker of a half-done change, the check that the counters add up), so it is the cheaper of the two.
-- KEYS: meta buyers requests orders stream. ARGV: epoch order buyer request fingerprint quantity.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'gate', 'starts', 'ends', 'limit', 'pay_within', 'available', 'reserved',
  'accepted', 'version')
local buyer, fingerprint, quantity = ARGV[3], ARGV[5], tonumber(ARGV[6])
local request = buyer .. ' ' .. ARGV[4]

local known = redis.call('HGET', KEYS[3], request)
if known then
  local record = redis.call('HGET', KEYS[4], known)
  if string.match(record, '^%u %d+ %d+ %d+ (%x+) ') ~= fingerprint then
    return 'K'
  end
  return 'R ' .. known .. ' ' .. record
end

if meta[2] ~= 'O' then
  return 'F'
elseif meta[1] ~= ARGV[1] then
  return 'S ' .. meta[1]
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now < tonumber(meta[3]) then
  return 'N'
elseif now >= tonumber(meta[4]) then
  return 'E'
end

local held = tonumber(redis.call('HGET', KEYS[2], buyer) or 0)
if held + quantity > tonumber(meta[5]) then
  return 'L ' .. held
end
local available = tonumber(meta[7])
if available < quantity then
  return 'O ' .. available
end

local times = string.format('%.0f %.0f', now, now + meta[6])
redis.call('HSET', KEYS[1], 'available', available - quantity, 'reserved', meta[8] + quantity, 'accepted', meta[9] + 1,
  'version', meta[10] + 1)
redis.call('HSET', KEYS[2], buyer, held + quantity)
redis.call('HSET', KEYS[3], request, ARGV[2])
redis.call('HSET', KEYS[4], ARGV[2], 'R ' .. quantity .. ' ' .. times .. ' ' .. fingerprint .. ' ' .. request)
redis.call('XADD', KEYS[5], '*', 'o', ARGV[2])
return 'A ' .. (available - quantity) .. ' ' .. times
