#!lua name=penstock_v1

-- The stock of a segment, decided inside Redis: what all functions of the library share. The files of this folder are loaded as
-- one library, base.lua first, on every primary by connect.rs; call.rs calls the functions, codec.rs reads their answers.
--
-- Every function takes the same six keys (keys.rs), all under one hash tag:
--   meta      hash: the rules, the counters, the gate, the epoch, `dirty`
--   buyers    hash: buyer -> live units (reserved or sold)
--   requests  hash: "buyer request" -> order id; never deleted, so a late retry finds its tombstone
--   orders    hash: order id -> "state quantity created pay_by fingerprint buyer request"; state is R, S or X
--   restocks  hash: restock id -> units
--   stream    one entry {o = order id} for each accepted order, read by the consumer group `settlement`, never trimmed
--
-- Redis does not roll a failed function back. So each function reads and checks everything first, and writes only then; it sets
-- `dirty` with its first write and clears it with its last, and whatever finds `dirty` set sells nothing (INV-ORDER-2).
--
-- Answers are one string of lines of words: one reply to build and to read, however large the batch. No id contains a space.
-- No `allow-oom` where units are taken: a full Redis refuses to sell. What gives back, settles or informs must go on.
-- The names carry the version: two versions can live side by side while nodes are upgraded. Any change of meaning is a `_v2`.

local META, BUYERS, REQUESTS, ORDERS, RESTOCKS, STREAM = 1, 2, 3, 4, 5, 6
local GROUP = 'settlement'
-- Lua's numbers are doubles: above 2^53 they skip integers.
local EXACT = 9007199254740992
-- Bounds the time that one call may hold the server, and what `unpack` may put on the stack. The same number is in call.rs.
local MAX_BATCH = 1024

local FIELDS = {
  'stock', 'starts', 'ends', 'limit', 'pay_within', 'epoch', 'version', 'available', 'reserved', 'sold', 'restocked', 'accepted',
  'gate', 'dirty',
}
local NUMBERS = 12

-- tostring() would round to 14 digits.
local function int(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function corrupt(what)
  return redis.error_reply('CORRUPT ' .. what)
end

-- The meta as a table; or nil and the error to answer with; or nil and nil where the segment was never opened.
local function read_meta(keys)
  local values = redis.call('HMGET', keys[META], unpack(FIELDS))
  local meta = {}
  for i, name in ipairs(FIELDS) do
    local value = values[i]
    if i <= NUMBERS then
      value = value and tonumber(value)
    end
    if not value then
      if redis.call('EXISTS', keys[META]) == 0 then
        return nil, nil
      end
      return nil, corrupt('the meta field ' .. name .. ' is missing or not a number')
    end
    meta[name] = value
  end
  if meta.dirty == '0' and meta.available + meta.reserved + meta.sold ~= meta.stock + meta.restocked then
    return nil, corrupt('INV-STOCK-2: the counters do not add up to the stock')
  end
  return meta, nil
end

-- The same for functions that must not go on without a segment that is whole.
local function read_whole_meta(keys)
  local meta, fault = read_meta(keys)
  if fault then
    return nil, fault
  end
  if not meta then
    return nil, redis.error_reply('NOTOPEN the segment was never opened here')
  end
  if meta.dirty ~= '0' then
    return nil, corrupt('an earlier call died between its first and its last write')
  end
  return meta, nil
end

local function read_open_meta(keys)
  local meta, fault = read_meta(keys)
  if not meta and not fault then
    fault = redis.error_reply('NOTOPEN the segment was never opened here')
  end
  return meta, fault
end

local function set_dirty(keys)
  redis.call('HSET', keys[META], 'dirty', '1')
end

-- The last write of every change.
local function write_counters(keys, meta)
  redis.call('HSET', keys[META],
    'version', meta.version, 'available', meta.available, 'reserved', meta.reserved, 'sold', meta.sold,
    'restocked', meta.restocked, 'accepted', meta.accepted, 'dirty', '0')
end

local function snapshot_of(meta)
  local words = {}
  for i = 1, NUMBERS do
    words[i] = int(meta[FIELDS[i]])
  end
  words[NUMBERS + 1] = meta.dirty == '0' and meta.gate or 'F'
  return table.concat(words, ' ')
end
