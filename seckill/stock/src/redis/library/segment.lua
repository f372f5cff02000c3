
-- What an operator does with a segment: opens it, changes its rules, its gate and its stock, looks at its counters.

-- args: stock starts ends limit pay_within durability
local function open(keys, args)
  local meta, fault = read_meta(keys)
  if fault then
    return fault
  end
  if not meta then
    -- Orders without a meta mean that the meta was lost. Selling the whole stock again would be the worst answer.
    if redis.call('EXISTS', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[MOVES], keys[STREAM]) > 0 then
      return corrupt('orders of this segment exist, but its meta is gone')
    end
    meta = { epoch = 1, version = 1, gate = 'O', state = 'W' }
    write_new(keys, args, meta, 'D')
    write_counters(keys, meta)
  elseif not is_held(meta) and meta.state == 'W' then
    -- A held segment gets its rules with its rebuild; one whose orders are gone must not sell a second time.
    local starts, ends, limit, pay_within = tonumber(args[2]), tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
    if meta.starts ~= starts or meta.ends ~= ends or meta.limit ~= limit or meta.pay_within ~= pay_within
      or redis.call('HGET', keys[META], 'durability') ~= args[6] then
      meta.starts, meta.ends, meta.limit, meta.pay_within = starts, ends, limit, pay_within
      meta.version = meta.version + 1
      redis.call('HSET', keys[META], 'starts', starts, 'ends', ends, 'limit', limit, 'pay_within', pay_within,
        'durability', args[6], 'version', meta.version)
    end
  end
  return snapshot_of(keys, meta)
end

-- args: gate (O, P, C, F)
local function set_gate(keys, args)
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  if meta.gate ~= args[1] then
    meta.gate = args[1]
    meta.version = meta.version + 1
    redis.call('HSET', keys[META], 'gate', meta.gate, 'version', meta.version)
  end
  return snapshot_of(keys, meta)
end

-- args: restock id, units
local function restock(keys, args)
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  local move, units = '+ ' .. args[1], tonumber(args[2])
  if not redis.call('HGET', keys[MOVES], move) then
    -- Subtracted, because a sum above 2^53 may round down to it.
    if units > EXACT - meta.stock - meta.restocked then
      return redis.error_reply('TOOBIG stock and restocks would pass 2^53 units')
    end
    meta.available = meta.available + units
    meta.restocked = meta.restocked + units
    meta.version = meta.version + 1
    set_dirty(keys)
    redis.call('HSET', keys[MOVES], move, units)
    write_counters(keys, meta)
  end
  return snapshot_of(keys, meta)
end

-- args: withdrawal id, units. Takes what there is of them, and answers how many that were, now or the first time.
local function withdraw(keys, args)
  local meta, fault = read_whole_meta(keys)
  if fault then
    return fault
  end
  local move = '- ' .. args[1]
  local taken = redis.call('HGET', keys[MOVES], move)
  if taken then
    return taken
  elseif meta.gate == 'F' then
    return awaits_rebuild()
  end
  local units = math.min(tonumber(args[2]), meta.available)
  meta.available = meta.available - units
  meta.withdrawn = meta.withdrawn + units
  meta.version = meta.version + 1
  set_dirty(keys)
  redis.call('HSET', keys[MOVES], move, units)
  write_counters(keys, meta)
  return int(units)
end

local function snapshot(keys)
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  return snapshot_of(keys, meta)
end

redis.register_function{ function_name = 'penstock_v3_open', callback = open }
redis.register_function{ function_name = 'penstock_v3_set_gate', callback = set_gate, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_restock', callback = restock }
redis.register_function{ function_name = 'penstock_v3_withdraw', callback = withdraw }
redis.register_function{ function_name = 'penstock_v3_snapshot', callback = snapshot, flags = { 'no-writes' } }
