
-- Purchases: the one step that takes units and puts their orders on the queue.

-- Why nobody can buy right now, or nil. The answer is the same for a whole batch.
local function refusal_of(meta, epoch, now)
  if meta.state == 'G' then
    return 'E'
  elseif is_held(meta) or meta.gate == 'F' then
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

-- Why this buyer cannot have so many units, or nil.
local function shortage_of(meta, holds, quantity)
  if holds + quantity > meta.limit then
    return 'L ' .. int(holds) .. ' ' .. int(meta.limit)
  elseif meta.available < quantity then
    return 'O ' .. int(meta.available) .. ' ' .. int(meta.version) .. ' ' .. int(meta.accepted)
  end
  return nil
end

-- Takes the units off the counters.
local function take(meta, quantity)
  meta.available = meta.available - quantity
  meta.reserved = meta.reserved + quantity
  meta.accepted = meta.accepted + 1
  meta.version = meta.version + 1
end

-- "created pay_by"
local function times_of(meta, now)
  return int(now) .. ' ' .. int(now + meta.pay_within)
end

-- args: epoch {order buyer request fingerprint quantity}…
local function buy(keys, args)
  local count = (#args - 1) / 5
  if count < 1 or count > MAX_BATCH or count % 1 ~= 0 then
    return redis.error_reply('ERR penstock: a batch has 1 to 1024 purchases of 5 arguments')
  end
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local now = now_ms()
  local refusal = refusal_of(meta, tonumber(args[1]), now)
  local times = times_of(meta, now)

  -- One read for the whole batch each. Together with XLEN they raise WRONGTYPE before anything is written.
  local ids, buyers, requests = {}, {}, {}
  for i = 1, count do
    local at = i * 5 - 3
    ids[i], buyers[i], requests[i] = args[at], args[at + 1], args[at + 1] .. ' ' .. args[at + 2]
  end
  local known = redis.call('HMGET', keys[REQUESTS], unpack(requests))
  local live = redis.call('HMGET', keys[BUYERS], unpack(buyers))
  local taken = redis.call('HMGET', keys[ORDERS], unpack(ids))
  redis.call('XLEN', keys[STREAM])

  local answers, accepted = {}, {}
  local fresh_ids, fresh_records, held = {}, {}, {}
  local new_requests, new_orders = {}, {}

  for i = 1, count do
    local id, buyer, request, fingerprint = ids[i], buyers[i], requests[i], args[i * 5]
    local quantity = tonumber(args[i * 5 + 1])
    -- The same request may stand in one batch twice: its second place replays its first.
    local first_id = fresh_ids[request] or known[i]

    if not quantity or quantity < 1 or quantity % 1 ~= 0 then
      answers[i] = 'Q'
    elseif first_id then
      local record = fresh_records[first_id] or redis.call('HGET', keys[ORDERS], first_id)
      if not record then
        return corrupt('INV-ORDER-2: a request points to an order that does not exist')
      end
      local _, _, first_fingerprint = parse(record)
      answers[i] = first_fingerprint == fingerprint and 'R ' .. first_id .. ' ' .. record or 'K'
    elseif refusal then
      answers[i] = refusal
    else
      local holds = held[buyer] or tonumber(live[i] or 0)
      local shortage = shortage_of(meta, holds, quantity)
      if shortage then
        answers[i] = shortage
      elseif taken[i] or fresh_records[id] then
        return redis.error_reply('TAKEN the order id ' .. id .. ' belongs to another order')
      else
        take(meta, quantity)
        local record = 'R ' .. int(quantity) .. ' ' .. times .. ' ' .. fingerprint .. ' ' .. request
        fresh_ids[request], fresh_records[id], held[buyer] = id, record, holds + quantity
        accepted[#accepted + 1] = id
        new_requests[#new_requests + 1] = request
        new_requests[#new_requests + 1] = id
        new_orders[#new_orders + 1] = id
        new_orders[#new_orders + 1] = record
        answers[i] = 'A ' .. int(meta.available) .. ' ' .. int(meta.version) .. ' ' .. times
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
    -- Requests last: were the server to stop half way, whatever can be replayed is on the queue, and a rebuild finds it there.
    for _, id in ipairs(accepted) do
      redis.call('XADD', keys[STREAM], '*', 'o', id)
    end
    redis.call('HSET', keys[ORDERS], unpack(new_orders))
    redis.call('HSET', keys[BUYERS], unpack(new_buyers))
    redis.call('HSET', keys[REQUESTS], unpack(new_requests))
    write_counters(keys, meta)
  end
  return table.concat(answers, '\n')
end

redis.register_function{ function_name = 'penstock_v2_buy', callback = buy }
