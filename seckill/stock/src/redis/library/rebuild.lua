
-- The rebuild of a segment from the ledger: freeze → (unsettled, into the ledger) → begin, moves… → load… → finish. Each step may be
-- repeated. The epoch fences them: it comes from the ledger, and a step under another than the segment's does nothing.

-- States in which a rebuild has stopped the segment.
local STOPPED = { F = true, B = true, H = true }
-- Versions of an epoch begin above all versions of the epochs before, which may have been lost with their server.
local VERSIONS_OF_EPOCH = 4294967296

-- The epoch and state of a segment (0 and nil where there is none), and the error if a step under `epoch` comes too late: the
-- rebuild under that epoch is over, or another has begun.
local function fence(keys, epoch)
  local old = redis.call('HMGET', keys[META], 'epoch', 'state')
  local current, state = tonumber(old[1] or 0), old[2] or nil
  if epoch < current or epoch == current and state and not STOPPED[state] then
    return current, state, stale(current)
  end
  return current, state, nil
end

-- The meta for a step after begin, which must be under way under this epoch and have its whole work on this server.
local function read_begun_meta(keys, epoch)
  local current, state, fault = fence(keys, epoch)
  if fault then
    return nil, fault
  elseif state ~= 'B' or epoch ~= current then
    return nil, awaits_rebuild()
  end
  local meta
  meta, fault = read_open_meta(keys)
  if not fault and meta.server ~= this_server() then
    return nil, awaits_rebuild()
  end
  return meta, fault
end

-- args: epoch. Answers a snapshot, or nothing where the segment is not known. Stops a segment with broken counters too.
local function freeze(keys, args)
  local epoch = tonumber(args[1])
  if redis.call('EXISTS', keys[META]) == 0 then
    return ''
  end
  local current, _, fault = fence(keys, epoch)
  if fault then
    return fault
  end
  local values = redis.call('HMGET', keys[META], unpack(FIELDS))
  local meta = { gate = 'F', state = 'F' }
  for i = 1, NUMBERS do
    meta[FIELDS[i]] = tonumber(values[i] or 0) or 0
  end
  if epoch > current then
    meta.epoch = epoch
    meta.version = meta.version + 1
    redis.call('HSET', keys[META], 'epoch', epoch, 'state', 'F', 'version', meta.version)
  end
  return snapshot_of(keys, meta)
end

-- args: epoch stock starts ends limit pay_within durability
local function begin(keys, args)
  local epoch = tonumber(args[1])
  local _, state, fault = fence(keys, epoch)
  if fault then
    return fault
  elseif state and not STOPPED[state] then
    return redis.error_reply('NOTFROZEN the segment must be frozen before it is rebuilt')
  end
  local version = tonumber(redis.call('HGET', keys[META], 'version') or 0) or 0
  local meta = { epoch = epoch, version = math.max(version + 1, epoch * VERSIONS_OF_EPOCH), gate = 'F', state = 'B' }
  -- Positions go on where the old queue ended: who read it up to there reads on, and late acknowledgements meet nothing.
  local last
  if redis.call('TYPE', keys[STREAM]).ok == 'stream' then
    local info = redis.call('XINFO', 'STREAM', keys[STREAM])
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        last = info[i + 1]
      end
    end
  end
  redis.call('HSET', keys[META], 'epoch', epoch, 'state', 'H')
  redis.call('UNLINK', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[MOVES], keys[STREAM])
  redis.call('HDEL', keys[META], 'cursor')
  write_new(keys, { unpack(args, 2) }, meta, 'H')
  if last then
    redis.call('XSETID', keys[STREAM], last)
  end
  write_counters(keys, meta)
  return ''
end

-- args: epoch, '+' restocks or '-' withdrawals, {id units}…
local function moves(keys, args)
  local count = (#args - 2) / 2
  if count < 1 or count > MAX_BATCH or count % 1 ~= 0 then
    return redis.error_reply('ERR penstock: a page has 1 to 1024 moves')
  end
  local meta, fault = read_begun_meta(keys, tonumber(args[1]))
  if fault then
    return fault
  end
  local names, writes = {}, {}
  for i = 1, count do
    names[i] = args[2] .. ' ' .. args[i * 2 + 1]
  end
  local known = redis.call('HMGET', keys[MOVES], unpack(names))
  local fresh, sum = {}, 0
  for i, name in ipairs(names) do
    if not known[i] and not fresh[name] then
      fresh[name] = true
      sum = sum + tonumber(args[i * 2 + 2])
      writes[#writes + 1] = name
      writes[#writes + 1] = args[i * 2 + 2]
    end
  end
  if args[2] == '+' then
    if sum > EXACT - meta.stock - meta.restocked then
      return redis.error_reply('TOOBIG stock and restocks would pass 2^53 units')
    end
    meta.available, meta.restocked = meta.available + sum, meta.restocked + sum
  else
    if sum > meta.available then
      return corrupt('INV-STOCK-2: more units were withdrawn than there were')
    end
    meta.available, meta.withdrawn = meta.available - sum, meta.withdrawn + sum
  end
  if #writes > 0 then
    redis.call('HSET', keys[META], 'state', 'H')
    redis.call('HSET', keys[MOVES], unpack(writes))
    write_counters(keys, meta)
  end
  return ''
end

-- args: epoch {id state quantity created pay_by fingerprint[metadata] buyer request}…
local function load(keys, args)
  local count = (#args - 1) / 8
  if count > MAX_BATCH or count % 1 ~= 0 then
    return redis.error_reply('ERR penstock: a page has up to 1024 orders of 8 arguments')
  end
  local meta, fault = read_begun_meta(keys, tonumber(args[1]))
  if fault or count == 0 then
    return fault or ''
  end
  local ids, buyers = {}, {}
  for i = 1, count do
    ids[i], buyers[i] = args[i * 8 - 6], args[i * 8]
  end
  local known = redis.call('HMGET', keys[ORDERS], unpack(ids))
  local holders = redis.call('HMGET', keys[BUYERS], unpack(buyers))
  check_types(keys)

  local fresh = nothing_fresh()
  for i, id in ipairs(ids) do
    if not known[i] and not fresh.records[id] then
      local at = i * 8 - 6
      local buyer, state, quantity = buyers[i], args[at + 1], tonumber(args[at + 2])
      local request = buyer .. ' ' .. args[at + 7]
      local holds, first, other, _, corruption = standing_of(keys, fresh, fresh.holders[buyer] or holders[i], request)
      if corruption then
        return corruption
      elseif other then
        return corrupt('INV-ORDER-1: the request of order ' .. id .. ' has another order too')
      end
      if state ~= 'X' then
        if meta.available < quantity then
          return corrupt('INV-STOCK-1: order ' .. id .. ' needs more units than are left')
        end
        local side = state == 'S' and 'sold' or 'reserved'
        meta.available, meta[side] = meta.available - quantity, meta[side] + quantity
        holds = holds + quantity
      end
      meta.accepted = meta.accepted + 1
      meta.version = meta.version + 1
      add_order(fresh, id, table.concat(args, ' ', at + 1, at + 7), buyer, int(holds), first, request)
    end
  end
  if #fresh.new_orders == 0 then
    return ''
  end
  redis.call('HSET', keys[META], 'state', 'H')
  local last = write_orders(keys, fresh)
  -- The ledger has them: they are handed out to nobody.
  redis.call('XGROUP', 'SETID', keys[STREAM], GROUP, last, 'ENTRIESREAD', meta.accepted)
  write_counters(keys, meta)
  return ''
end

-- args: epoch, gate
local function finish(keys, args)
  local epoch = tonumber(args[1])
  local current, state = fence(keys, epoch)
  if state and epoch == current and not STOPPED[state] then
    -- Its answer was lost; the operator may have moved the gate since.
    return snapshot(keys)
  end
  local meta, fault = read_begun_meta(keys, epoch)
  if fault then
    return fault
  end
  meta.state, meta.gate = 'W', args[2]
  meta.version = meta.version + 1
  redis.call('HSET', keys[META], 'state', 'W', 'gate', meta.gate, 'version', meta.version)
  return snapshot_of(keys, meta)
end

redis.register_function{ function_name = 'penstock_v3_freeze', callback = freeze, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_rebuild_begin', callback = begin, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_rebuild_moves', callback = moves }
redis.register_function{ function_name = 'penstock_v3_rebuild_load', callback = load }
redis.register_function{ function_name = 'penstock_v3_rebuild_finish', callback = finish, flags = { 'allow-oom' } }
