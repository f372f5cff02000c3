
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

-- Lines "position id record" of the entries that are accepted orders, after a line with the position to read on from: "-" at the
-- end. A page may hold fewer lines than entries, none even: a poison entry is no order.
local function page_of(keys, entries, next)
  local ids, records = records_of(keys, entries)
  local lines = { next }
  for i, entry in ipairs(entries) do
    if records[i] then
      lines[#lines + 1] = entry[1] .. ' ' .. ids[i] .. ' ' .. records[i]
    end
  end
  return table.concat(lines, '\n')
end

local function bad_page()
  return redis.error_reply('ERR penstock: a page has 1 to 1024 entries')
end

-- args: after, max
local function accepted(keys, args)
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local max = tonumber(args[2])
  if max < 1 or max > MAX_BATCH then
    return bad_page()
  elseif meta.state == 'G' then
    return '-'
  end
  local entries = redis.call('XRANGE', keys[STREAM], '(' .. args[1], '+', 'COUNT', max)
  return page_of(keys, entries, #entries == max and entries[max][1] or '-')
end

-- The consumer group as a table, or nil.
local function group_of(keys)
  for _, fields in ipairs(redis.call('XINFO', 'GROUPS', keys[STREAM])) do
    local group = {}
    for i = 1, #fields, 2 do
      group[fields[i]] = fields[i + 1]
    end
    if group['name'] == GROUP then
      return group
    end
  end
  return nil
end

local function is_before(one, other)
  local major, minor = string.match(one, '^(%d+)-(%d+)$')
  local other_major, other_minor = string.match(other, '^(%d+)-(%d+)$')
  if major ~= other_major then
    return tonumber(major) < tonumber(other_major)
  end
  return tonumber(minor) < tonumber(other_minor)
end

-- args: after, max. What was never acknowledged, for a rebuild: from the queue alone, whatever the meta says, if it is there at all.
local function unsettled(keys, args)
  local after, max = args[1], tonumber(args[2])
  if max < 1 or max > MAX_BATCH then
    return bad_page()
  elseif redis.call('EXISTS', keys[STREAM]) == 0 then
    return '-'
  end
  -- Without a group nobody knows what was acknowledged: then all of it.
  local entries, seen, last, from = {}, 0, nil, after
  local group = group_of(keys)
  if group then
    local pending = redis.call('XPENDING', keys[STREAM], GROUP, '(' .. after, '+', max)
    for _, taken in ipairs(pending) do
      last = taken[1]
      -- Gone if somebody deleted it by hand.
      entries[#entries + 1] = redis.call('XRANGE', keys[STREAM], last, last)[1]
    end
    seen = #pending
    if is_before(from, group['last-delivered-id']) then
      from = group['last-delivered-id']
    end
  end
  if seen < max then
    for _, entry in ipairs(redis.call('XRANGE', keys[STREAM], '(' .. from, '+', 'COUNT', max - seen)) do
      entries[#entries + 1] = entry
      last = entry[1]
      seen = seen + 1
    end
  end
  return page_of(keys, entries, seen == max and last or '-')
end

-- How long the orders of a sale are kept after its end and its last time to pay: as long as a request may be repeated and must find
-- its tombstone. docs/operating/configuration.md says it.
local KEPT_MS = 7 * 24 * 3600 * 1000

-- Gives the memory of a sale back that is over and settled, once nobody may ask for its requests any more. UNLINK: the server frees
-- large keys beside its work.
local function retire(keys, meta)
  if meta.reserved > 0 or now_ms() < meta.ends + meta.pay_within + KEPT_MS then
    return
  end
  if redis.call('XPENDING', keys[STREAM], GROUP)[1] == 0 then
    redis.call('HSET', keys[META], 'state', 'G')
    redis.call('UNLINK', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[STREAM])
  end
end

-- args: consumer, max, reclaim after (ms). Answers lines "position epoch deliveries id record", or "position epoch deliveries ! reason".
local function pull(keys, args)
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  local consumer, max, idle = args[1], tonumber(args[2]), args[3]
  if max < 1 or max > MAX_BATCH then
    return bad_page()
  elseif meta.state == 'G' then
    return ''
  end

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

  if #entries == 0 then
    retire(keys, meta)
    return ''
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
    lines[i] = position .. ' ' .. int(meta.epoch) .. ' ' .. int(deliveries) .. ' ' .. content
  end
  return table.concat(lines, '\n')
end

-- args: positions
local function ack(keys, args)
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  return meta.state == 'G' and '0' or int(redis.call('XACK', keys[STREAM], GROUP, unpack(args)))
end

-- Answers "entries oldest_age_ms". Both counts are kept by Redis, so this costs the same however long the queue is.
local function depth(keys)
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  elseif meta.state == 'G' then
    return '0 0'
  end
  local group = group_of(keys)
  if not group then
    return corrupt('the consumer group ' .. GROUP .. ' is gone')
  end
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

redis.register_function{ function_name = 'penstock_v3_accepted', callback = accepted, flags = { 'no-writes' } }
redis.register_function{ function_name = 'penstock_v3_unsettled', callback = unsettled, flags = { 'no-writes' } }
redis.register_function{ function_name = 'penstock_v3_pull', callback = pull, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_ack', callback = ack, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_depth', callback = depth, flags = { 'no-writes' } }
