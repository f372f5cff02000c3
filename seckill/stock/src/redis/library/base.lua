#!lua name=penstock_v3

-- The stock of a segment, decided inside Redis: what all functions of the library share. The files of this folder are loaded as
-- one library, base.lua first, on every primary by connect.rs; call.rs calls the functions, codec/ reads their answers.
--
-- Every function takes the same six keys a segment (keys.rs), all under one hash tag:
--   meta      hash: the rules, the counters, the gate, the epoch, the state, the server
--   buyers    hash: buyer -> "units first", his live units (reserved or sold) and his first order; kept when that is returned
--   requests  hash: "buyer request" -> order id, of a buyer's orders after his first; kept too, so a late retry finds its tombstone
--   orders    hash: order id -> "state quantity created pay_by fingerprint[metadata] buyer request"; state is R, S or X, a fingerprint
--             has 16 digits, and metadata is a JSON object in which no space stands as such
--   moves     hash: "+ restock id" and "- withdrawal id" -> units
--   stream    one entry {o = order id} for each accepted order, read by the consumer group `settlement`, never trimmed
--
-- Redis does not roll a failed function back. So each function reads and checks everything first, and writes only then; it sets
-- the state to D with its first write and back with its last, and whatever is not W sells nothing (INV-ORDER-2). The states:
--   W  whole: the segment may sell
--   D  a call died between its first and its last write
--   F  frozen under an epoch, waiting for its rebuild
--   B  being rebuilt: emptied, some orders loaded
--   H  a step of the rebuild died half way
--   G  over and settled for so long that its orders were thrown away; the counters stay
-- What puts D, F, B or H back to W is a whole rebuild (rebuild.lua).
--
-- Answers are one string of lines of words: one reply to build and to read, however large the batch. No id contains a space.
-- No `allow-oom` where units are taken: a full Redis refuses to sell. What gives back, settles or informs must go on.
-- The names carry the version: two versions can be loaded side by side. What a segment holds belongs to one of them: to another it is
-- not whole, and is rebuilt from queue and ledger. Any change of meaning is a `_v4`, and another LAYOUT.

local META, BUYERS, REQUESTS, ORDERS, MOVES, STREAM = 1, 2, 3, 4, 5, 6
local KEYS_OF_SEGMENT = 6
local GROUP = 'settlement'
-- Of what the keys of a segment hold.
local LAYOUT = 'v3'
-- Lua's numbers are doubles: above 2^53 they skip integers.
local EXACT = 9007199254740992
-- Bounds the time that one call may hold the server, and what `unpack` may put on the stack. The same number is in call.rs.
local MAX_BATCH = 1024

local FIELDS = {
  'stock', 'starts', 'ends', 'limit', 'pay_within', 'epoch', 'version', 'available', 'reserved', 'sold', 'restocked', 'withdrawn',
  'accepted', 'gate', 'state', 'server',
}
local NUMBERS = 13

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

local function awaits_rebuild()
  return redis.error_reply('AWAITS the segment is being rebuilt, or waits for it')
end

local function stale(epoch)
  return redis.error_reply('STALE ' .. int(epoch))
end

-- Which life of which server this is. A restart is another run id; a replica that is promoted notes where it left its primary's
-- history. Asked once in the life of this library: whatever replaces the data of a running server (it became a replica and copied
-- all from another) replaces the library with them.
local incarnation

local function this_server()
  if not incarnation then
    local info = redis.call('INFO', 'server', 'replication')
    incarnation = LAYOUT .. ':' .. string.match(info, 'run_id:(%w+)') .. ':' .. string.match(info, 'second_repl_offset:(%-?%d+)')
      .. ':' .. string.match(info, 'master_replid2:(%w+)')
  end
  return incarnation
end

-- Whether the segment must not be trusted or touched: not whole, or last whole on another server than this.
local function is_held(meta)
  return meta.state ~= 'G' and (meta.state ~= 'W' or meta.server ~= this_server())
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
  if meta.state == 'W' and meta.available + meta.reserved + meta.sold ~= meta.stock + meta.restocked - meta.withdrawn then
    return nil, corrupt('INV-STOCK-2: the counters do not add up to the stock')
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

-- The same for functions that must not go on without a segment that is whole.
local function read_whole_meta(keys)
  local meta, fault = read_open_meta(keys)
  if not fault and is_held(meta) then
    return nil, awaits_rebuild()
  end
  return meta, fault
end

-- The first write of every change.
local function set_dirty(keys)
  redis.call('HSET', keys[META], 'state', 'D')
end

-- The last write of every change.
local function write_counters(keys, meta)
  redis.call('HSET', keys[META],
    'version', meta.version, 'available', meta.available, 'reserved', meta.reserved, 'sold', meta.sold,
    'restocked', meta.restocked, 'withdrawn', meta.withdrawn, 'accepted', meta.accepted, 'state', meta.state)
end

-- An empty segment under these rules (stock starts ends limit pay_within durability); its state is `unfinished` until the counters
-- are written.
local function write_new(keys, rules, meta, unfinished)
  meta.stock, meta.starts, meta.ends = tonumber(rules[1]), tonumber(rules[2]), tonumber(rules[3])
  meta.limit, meta.pay_within = tonumber(rules[4]), tonumber(rules[5])
  meta.available, meta.reserved, meta.sold = meta.stock, 0, 0
  meta.restocked, meta.withdrawn, meta.accepted = 0, 0, 0
  meta.server = this_server()
  redis.call('HSET', keys[META], 'state', unfinished, 'stock', rules[1], 'starts', rules[2], 'ends', rules[3], 'limit', rules[4],
    'pay_within', rules[5], 'durability', rules[6], 'epoch', meta.epoch, 'gate', meta.gate, 'server', meta.server)
  -- At 0 and not at $: the first orders belong to settlement as well.
  redis.call('XGROUP', 'CREATE', keys[STREAM], GROUP, '0', 'MKSTREAM')
end

-- "numbers… gate doubt durability": doubt is 1 where only a rebuild opens the segment again.
local function snapshot_of(keys, meta)
  local words = {}
  for i = 1, NUMBERS do
    words[i] = int(meta[FIELDS[i]])
  end
  local held = is_held(meta)
  words[NUMBERS + 1] = held and 'F' or meta.gate
  words[NUMBERS + 2] = held and '1' or '0'
  words[NUMBERS + 3] = redis.call('HGET', keys[META], 'durability') or '-'
  return table.concat(words, ' ')
end

-- An order's record in pieces, or nil. Times and metadata are not needed in here.
local function parse(record)
  local state, quantity, fingerprint, buyer = string.match(record, '^(%u) (%d+) %d+ %d+ (%x+)%S* (%S+) %S+$')
  return state, tonumber(quantity), fingerprint, buyer
end
