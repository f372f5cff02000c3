
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

-- Digits at the beginning of a purchase's content. Metadata may follow, then a space and "buyer request".
local FINGERPRINT = 16

-- args: epoch {order buyer content quantity}…, where content is "fingerprint[metadata] buyer request". Answers "available version created pay_by"
-- as they are before the first purchase, then a line for each: A takes its quantity off the one and adds 1 to the other.
local function buy(keys, args)
  local count = (#args - 1) / 4
  if count < 1 or count > MAX_BATCH or count % 1 ~= 0 then
    return redis.error_reply('ERR penstock: a batch has 1 to 1024 purchases of 4 arguments')
  end
  local meta, fault = read_open_meta(keys)
  if fault then
    return fault
  end
  local now = now_ms()
  local refusal = refusal_of(meta, tonumber(args[1]), now)
  local times = times_of(meta, now)

  -- One read for the whole batch each. What has the wrong type raises an error here, before anything is written.
  local ids, buyers = {}, {}
  for i = 1, count do
    ids[i], buyers[i] = args[i * 4 - 2], args[i * 4 - 1]
  end
  local holders = redis.call('HMGET', keys[BUYERS], unpack(buyers))
  local taken = redis.call('HMGET', keys[ORDERS], unpack(ids))
  check_types(keys)

  local answers = { int(meta.available) .. ' ' .. int(meta.version) .. ' ' .. times }
  local fresh = nothing_fresh()
  -- Few numbers of units in a batch are different, and putting one into words is dear.
  local words = {}
  local function word(units)
    words[units] = words[units] or int(units)
    return words[units]
  end

  for i = 1, count do
    local id, buyer, content, quantity = ids[i], buyers[i], args[i * 4], tonumber(args[i * 4 + 1])
    -- The same buyer, and the same request, may stand in one batch twice.
    local holder = fresh.holders[buyer] or holders[i]
    -- Who has no entry has no request either.
    local request = holder and string.sub(content, string.find(content, ' ', FINGERPRINT, true) + 1)
    local holds, first, known, record, corruption = standing_of(keys, fresh, holder, request)

    if not quantity or quantity < 1 or quantity % 1 ~= 0 then
      answers[i + 1] = 'Q'
    elseif corruption then
      return corruption
    elseif known then
      local _, _, fingerprint = parse(record)
      answers[i + 1] = fingerprint == string.sub(content, 1, FINGERPRINT) and 'R ' .. known .. ' ' .. record or 'K'
    elseif refusal then
      answers[i + 1] = refusal
    else
      local shortage = shortage_of(meta, holds, quantity)
      if shortage then
        answers[i + 1] = shortage
      elseif taken[i] or fresh.records[id] then
        return redis.error_reply('TAKEN the order id ' .. id .. ' belongs to another order')
      else
        take(meta, quantity)
        record = 'R ' .. word(quantity) .. ' ' .. times .. ' ' .. content
        add_order(fresh, id, record, buyer, word(holds + quantity), first, request)
        answers[i + 1] = 'A'
      end
    end
  end

  if #fresh.new_orders > 0 then
    set_dirty(keys)
    write_orders(keys, fresh)
    write_counters(keys, meta)
  end
  return table.concat(answers, '\n')
end

redis.register_function{ function_name = 'penstock_v3_buy', callback = buy }
