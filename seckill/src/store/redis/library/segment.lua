
-- What an operator does with a segment: opens it, changes its rules, its gate and its stock, looks at its counters.

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

redis.register_function{ function_name = 'penstock_v1_open', callback = open }
redis.register_function{ function_name = 'penstock_v1_set_gate', callback = set_gate, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v1_restock', callback = restock }
redis.register_function{ function_name = 'penstock_v1_snapshot', callback = snapshot, flags = { 'no-writes' } }
