
-- What happens to an order after it was accepted.

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
  local answers, moved, held, firsts, writes = {}, {}, {}, {}, {}
  local units = 0
  for i, id in ipairs(ids) do
    local record = moved[id] or records[i]
    if not record then
      answers[i] = '-'
    else
      local state, quantity, _, buyer = parse(record)
      if not state then
        return corrupt('the record of order ' .. id .. ' is unreadable')
      elseif state ~= 'R' then
        answers[i] = state
      else
        if into == 'X' then
          if not held[buyer] then
            held[buyer], firsts[buyer] = parse_holder(redis.call('HGET', keys[BUYERS], buyer) or '')
          end
          if not held[buyer] or held[buyer] < quantity then
            return corrupt('INV-BUYER-1: the buyer of order ' .. id .. ' holds fewer units than it')
          end
          held[buyer] = held[buyer] - quantity
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
    for buyer, units in pairs(held) do
      redis.call('HSET', keys[BUYERS], buyer, int(units) .. ' ' .. firsts[buyer])
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

-- args: 'order' id | 'request' buyer request. Answers "id record", or nothing.
local function find(keys, args)
  local _, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local id, record = args[2], nil
  if args[1] == 'order' then
    record = redis.call('HGET', keys[ORDERS], id)
  else
    local holder = redis.call('HGET', keys[BUYERS], args[2])
    _, _, id, record, fault = standing_of(keys, nothing_fresh(), holder, args[2] .. ' ' .. args[3])
  end
  return fault or record and id .. ' ' .. record or ''
end

redis.register_function{ function_name = 'penstock_v3_release', callback = release, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_confirm', callback = confirm, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'penstock_v3_find', callback = find, flags = { 'no-writes' } }
