
-- The queue between the sale and settlement.

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

redis.register_function{ function_name = 'penstock_v1_accepted', callback = accepted, flags = { 'no-writes' } }
redis.register_function{ function_name = 'penstock_v1_pull', callback = pull, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_ack', callback = ack, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_depth', callback = depth, flags = { 'no-writes' } }
