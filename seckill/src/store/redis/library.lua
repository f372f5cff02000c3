#!lua name=penstock_v1

-- The stock of a segment, decided inside Redis. Loaded on every primary by connect.rs, called by call.rs, answers read by codec.rs.
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
-- Answers are one string of lines of words: building and reading that costs a tenth of nested replies. No id contains a space.
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

-- args: stock starts ends limit pay_within
local function open(keys, args)
  local meta, fault = read_meta(keys)
  if fault then
    return fault
  end
  local rules = {}
  for i = 1, 5 do
    rules[i] = tonumber(args[i])
  end
  if not meta then
    -- Orders without a meta mean that the meta was lost. Selling the whole stock again would be the worst answer.
    if redis.call('EXISTS', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[RESTOCKS], keys[STREAM]) > 0 then
      return corrupt('orders of this segment exist, but its meta is gone')
    end
    meta = {
      stock = rules[1], starts = rules[2], ends = rules[3], limit = rules[4], pay_within = rules[5],
      epoch = 1, version = 1, available = rules[1], reserved = 0, sold = 0, restocked = 0, accepted = 0, gate = 'O', dirty = '0',
    }
    redis.call('HSET', keys[META], 'stock', rules[1], 'starts', rules[2], 'ends', rules[3], 'limit', rules[4],
      'pay_within', rules[5], 'epoch', 1, 'gate', 'O', 'dirty', '1')
    -- At 0 and not at $: the first orders belong to settlement as well.
    redis.call('XGROUP', 'CREATE', keys[STREAM], GROUP, '0', 'MKSTREAM')
    write_counters(keys, meta)
  elseif meta.starts ~= rules[2] or meta.ends ~= rules[3] or meta.limit ~= rules[4] or meta.pay_within ~= rules[5] then
    meta.starts, meta.ends, meta.limit, meta.pay_within = rules[2], rules[3], rules[4], rules[5]
    meta.version = meta.version + 1
    redis.call('HSET', keys[META], 'starts', rules[2], 'ends', rules[3], 'limit', rules[4], 'pay_within', rules[5],
      'version', meta.version)
  end
  return snapshot_of(meta)
end

-- Why nobody can buy right now, or nil. The answer is the same for a whole batch.
local function refusal_of(meta, epoch, now)
  if meta.dirty ~= '0' or meta.gate == 'F' then
    return 'F'
  elseif epoch ~= meta.epoch then
    return 'S ' .. int(meta.epoch)
  elseif meta.gate == 'C' or now >= meta.ends then
    return 'E'
  elseif meta.gate == 'P' then
    return 'P'
  elseif now < meta.starts then
    return 'N ' .. int(meta.starts) .. ' ' .. int(now)
  end
  return nil
end

-- args: epoch touch {order buyer request fingerprint quantity}…
local function buy(keys, args)
  local count = (#args - 2) / 5
  if count < 1 or count > MAX_BATCH or count % 1 ~= 0 then
    return redis.error_reply('ERR penstock: a batch has 1 to 1024 purchases of 5 arguments')
  end
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local now = now_ms()
  local refusal = refusal_of(meta, tonumber(args[1]), now)

  -- One read for the whole batch each. Together with XLEN they raise WRONGTYPE before anything is written.
  local ids, buyers, requests = {}, {}, {}
  for i = 1, count do
    local at = i * 5 - 2
    ids[i], buyers[i], requests[i] = args[at], args[at + 1], args[at + 1] .. ' ' .. args[at + 2]
  end
  local known = redis.call('HMGET', keys[REQUESTS], unpack(requests))
  local live = redis.call('HMGET', keys[BUYERS], unpack(buyers))
  local taken = redis.call('HMGET', keys[ORDERS], unpack(ids))
  redis.call('XLEN', keys[STREAM])

  local answers, accepted = {}, {}
  local fresh_ids, fresh_records, held = {}, {}, {}
  local new_requests, new_orders = {}, {}
  local replayed = false

  for i = 1, count do
    local id, buyer, request, fingerprint = ids[i], buyers[i], requests[i], args[i * 5 + 1]
    local quantity = tonumber(args[i * 5 + 2])
    -- The same request may stand in one batch twice: its second place replays its first.
    local first_id = fresh_ids[request] or known[i]

    if not quantity or quantity < 1 or quantity % 1 ~= 0 then
      answers[i] = 'Q'
    elseif first_id then
      local record = fresh_records[first_id] or redis.call('HGET', keys[ORDERS], first_id)
      if record then
        local first_fingerprint = string.match(record, '^%u %d+ %d+ %d+ (%x+) ')
        answers[i] = first_fingerprint == fingerprint and 'R ' .. first_id .. ' ' .. record or 'K'
        replayed = true
      elseif meta.dirty ~= '0' then
        answers[i] = 'F'
      else
        return corrupt('INV-ORDER-2: a request points to an order that does not exist')
      end
    elseif refusal then
      answers[i] = refusal
    else
      local holds = held[buyer] or tonumber(live[i] or 0)
      if holds + quantity > meta.limit then
        answers[i] = 'L ' .. int(holds) .. ' ' .. int(meta.limit)
      elseif meta.available < quantity then
        answers[i] = 'O ' .. int(meta.available) .. ' ' .. int(meta.version) .. ' ' .. int(meta.accepted)
      elseif taken[i] or fresh_records[id] then
        return redis.error_reply('TAKEN the order id ' .. id .. ' belongs to another order')
      else
        meta.available = meta.available - quantity
        meta.reserved = meta.reserved + quantity
        meta.accepted = meta.accepted + 1
        meta.version = meta.version + 1
        local pay_by = now + meta.pay_within
        local record = table.concat({ 'R', int(quantity), int(now), int(pay_by), fingerprint, request }, ' ')
        fresh_ids[request], fresh_records[id], held[buyer] = id, record, holds + quantity
        accepted[#accepted + 1] = id
        new_requests[#new_requests + 1] = request
        new_requests[#new_requests + 1] = id
        new_orders[#new_orders + 1] = id
        new_orders[#new_orders + 1] = record
        answers[i] = table.concat({ 'A', int(meta.available), int(meta.version), int(now), int(pay_by) }, ' ')
      end
    end
  end

  if #accepted > 0 then
    local new_buyers = {}
    for buyer, units in pairs(held) do
      new_buyers[#new_buyers + 1] = buyer
      new_buyers[#new_buyers + 1] = units
    end
    set_dirty(keys)
    redis.call('HSET', keys[REQUESTS], unpack(new_requests))
    redis.call('HSET', keys[ORDERS], unpack(new_orders))
    redis.call('HSET', keys[BUYERS], unpack(new_buyers))
    for _, id in ipairs(accepted) do
      redis.call('XADD', keys[STREAM], '*', 'o', id)
    end
    write_counters(keys, meta)
  elseif replayed and args[2] == '1' then
    -- A replayed answer must be as durable as the first one. Replicas acknowledge positions of their log, so one write here
    -- makes the WAIT that follows cover everything before it.
    redis.call('HSET', keys[META], 'touched', now)
  end
  return table.concat(answers, '\n')
end

-- Moves reserved orders to `into` (X released, S sold). Answers one character an order: + moved now, - unknown, else its state.
local function settle(keys, ids, into)
  if #ids < 1 or #ids > MAX_BATCH then
    return redis.error_reply('ERR penstock: a batch has 1 to 1024 orders')
  end
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  local records = redis.call('HMGET', keys[ORDERS], unpack(ids))
  local answers, moved, held, writes = {}, {}, {}, {}
  local units = 0
  for i, id in ipairs(ids) do
    local record = moved[id] or records[i]
    if not record then
      answers[i] = '-'
    else
      local state, quantity, buyer = string.match(record, '^(%u) (%d+) %d+ %d+ %x+ (%S+) %S+$')
      if not state then
        return corrupt('the record of order ' .. id .. ' is unreadable')
      elseif state ~= 'R' then
        answers[i] = state
      else
        quantity = tonumber(quantity)
        if into == 'X' then
          local live = held[buyer] or tonumber(redis.call('HGET', keys[BUYERS], buyer) or 0)
          if live < quantity then
            return corrupt('INV-BUYER-1: the buyer of order ' .. id .. ' holds fewer units than it')
          end
          held[buyer] = live - quantity
        end
        units = units + quantity
        moved[id] = into .. string.sub(record, 2)
        writes[#writes + 1] = id
        writes[#writes + 1] = moved[id]
        answers[i] = '+'
      end
    end
  end
  if units > meta.reserved then
    return corrupt('INV-STOCK-2: more units in reserved orders than reserved')
  end
  if units > 0 then
    meta.reserved = meta.reserved - units
    if into == 'X' then
      meta.available = meta.available + units
    else
      meta.sold = meta.sold + units
    end
    meta.version = meta.version + #writes / 2
    set_dirty(keys)
    redis.call('HSET', keys[ORDERS], unpack(writes))
    for buyer, live in pairs(held) do
      if live > 0 then
        redis.call('HSET', keys[BUYERS], buyer, live)
      else
        redis.call('HDEL', keys[BUYERS], buyer)
      end
    end
    write_counters(keys, meta)
  end
  return table.concat(answers)
end

local function release(keys, ids)
  return settle(keys, ids, 'X')
end

local function confirm(keys, ids)
  return settle(keys, ids, 'S')
end

-- args: gate (O, P, C, F). Works on a dirty segment too, and leaves it dirty.
local function set_gate(keys, args)
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  if meta.gate ~= args[1] then
    meta.gate = args[1]
    meta.version = meta.version + 1
    redis.call('HSET', keys[META], 'gate', meta.gate, 'version', meta.version)
  end
  return snapshot_of(meta)
end

-- args: restock id, units
local function restock(keys, args)
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  local units = tonumber(args[2])
  if not redis.call('HGET', keys[RESTOCKS], args[1]) then
    -- Subtracted, because a sum above 2^53 may round down to it.
    if units > EXACT - meta.stock - meta.restocked then
      return redis.error_reply('TOOBIG stock and restocks would pass 2^53 units')
    end
    meta.available = meta.available + units
    meta.restocked = meta.restocked + units
    meta.version = meta.version + 1
    set_dirty(keys)
    redis.call('HSET', keys[RESTOCKS], args[1], units)
    write_counters(keys, meta)
  end
  return snapshot_of(meta)
end

local function snapshot(keys)
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  return snapshot_of(meta)
end

-- args: 'order' id | 'request' "buyer request". Answers "id record", or nothing.
local function find(keys, args)
  local _, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local id = args[2]
  if args[1] == 'request' then
    id = redis.call('HGET', keys[REQUESTS], id)
  end
  local record = id and redis.call('HGET', keys[ORDERS], id)
  return record and id .. ' ' .. record or ''
end

-- The order ids of stream entries (false where an entry has none) and their records.
local function records_of(keys, entries)
  local ids, asked = {}, {}
  for i, entry in ipairs(entries) do
    local fields = entry[2]
    ids[i] = fields and fields[1] == 'o' and fields[2] or false
    asked[i] = ids[i] or ''
  end
  if #entries == 0 then
    return ids, {}
  end
  return ids, redis.call('HMGET', keys[ORDERS], unpack(asked))
end

-- args: after, max. Answers lines "position id record".
local function accepted(keys, args)
  local _, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local after, max = args[1], tonumber(args[2])
  local lines = {}
  repeat
    local entries = redis.call('XRANGE', keys[STREAM], '(' .. after, '+', 'COUNT', max - #lines)
    local ids, records = records_of(keys, entries)
    for i, entry in ipairs(entries) do
      after = entry[1]
      -- A poison entry is no accepted order; it must not end the page early either.
      if records[i] then
        lines[#lines + 1] = entry[1] .. ' ' .. ids[i] .. ' ' .. records[i]
      end
    end
  until #entries == 0 or #lines >= max
  return table.concat(lines, '\n')
end

-- args: consumer, max, reclaim after (ms). Answers lines "position deliveries id record", or "position deliveries ! reason".
local function pull(keys, args)
  local _, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local consumer, max, idle = args[1], tonumber(args[2]), args[3]

  -- XAUTOCLAIM looks at ten times COUNT pending entries and no more; the cursor lets the next call go on where this one stopped.
  local kept = redis.call('HGET', keys[META], 'cursor') or '0-0'
  local cursor = kept
  local entries, reclaimed = {}, 0
  for _ = 1, 4 do
    local claim = redis.call('XAUTOCLAIM', keys[STREAM], GROUP, consumer, idle, cursor, 'COUNT', max - #entries)
    cursor = claim[1]
    for _, entry in ipairs(claim[2]) do
      entries[#entries + 1] = entry
    end
    if cursor == '0-0' or #entries >= max then
      break
    end
  end
  if cursor ~= kept then
    redis.call('HSET', keys[META], 'cursor', cursor)
  end
  reclaimed = #entries

  if #entries < max then
    local reply = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', max - #entries, 'STREAMS', keys[STREAM], '>')
    if reply then
      for _, entry in ipairs(reply[1][2]) do
        entries[#entries + 1] = entry
      end
    end
  end

  local ids, records = records_of(keys, entries)
  local lines = {}
  for i, entry in ipairs(entries) do
    local position = entry[1]
    local deliveries = 1
    if i <= reclaimed then
      local pending = redis.call('XPENDING', keys[STREAM], GROUP, position, position, 1)
      deliveries = pending[1] and pending[1][4] or 1
    end
    local content
    if records[i] then
      content = ids[i] .. ' ' .. records[i]
    elseif ids[i] then
      content = '! the entry names an order that this segment does not hold'
    else
      content = '! the entry has no order id'
    end
    lines[i] = position .. ' ' .. int(deliveries) .. ' ' .. content
  end
  return table.concat(lines, '\n')
end

-- args: positions
local function ack(keys, args)
  local _, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  return int(redis.call('XACK', keys[STREAM], GROUP, unpack(args)))
end

-- Answers "entries oldest_age_ms". Both counts are kept by Redis, so this costs the same however long the queue is.
local function depth(keys)
  local _, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  for _, fields in ipairs(redis.call('XINFO', 'GROUPS', keys[STREAM])) do
    local group = {}
    for i = 1, #fields, 2 do
      group[fields[i]] = fields[i + 1]
    end
    if group['name'] == GROUP then
      -- Redis gives no lag after somebody deleted entries by hand: then say the most it can be.
      local lag = group['lag'] or redis.call('XLEN', keys[STREAM]) - group['pending']
      local oldest
      if group['pending'] > 0 then
        oldest = redis.call('XPENDING', keys[STREAM], GROUP, '-', '+', 1)[1]
      elseif lag > 0 then
        oldest = redis.call('XRANGE', keys[STREAM], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
      end
      local age = 0
      if oldest then
        age = math.max(0, now_ms() - tonumber(string.match(oldest[1], '^(%d+)-')))
      end
      return int(group['pending'] + lag) .. ' ' .. int(age)
    end
  end
  return corrupt('the consumer group ' .. GROUP .. ' is gone')
end

-- No `allow-oom` where units are taken: a full Redis refuses to sell. What gives back, settles or informs must go on.
redis.register_function{ function_name = 'penstock_v1_open', callback = open }
redis.register_function{ function_name = 'penstock_v1_buy', callback = buy }
redis.register_function{ function_name = 'penstock_v1_release', callback = release, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_confirm', callback = confirm, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_set_gate', callback = set_gate, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_restock', callback = restock }
redis.register_function{ function_name = 'penstock_v1_pull', callback = pull, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_ack', callback = ack, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_snapshot', callback = snapshot, flags = { 'no-writes' } }
redis.register_function{ function_name = 'penstock_v1_find', callback = find, flags = { 'no-writes' } }
redis.register_function{ function_name = 'penstock_v1_accepted', callback = accepted, flags = { 'no-writes' } }
redis.register_function{ function_name = 'penstock_v1_depth', callback = depth, flags = { 'no-writes' } }
