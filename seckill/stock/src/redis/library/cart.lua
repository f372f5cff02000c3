
-- Carts: several segments of one slot, all lines or none.

-- The six keys of the line'th segment.
local function keys_of(keys, line)
  local own = {}
  for i = 1, KEYS_OF_SEGMENT do
    own[i] = keys[(line - 1) * KEYS_OF_SEGMENT + i]
  end
  return own
end

local function refused(line, verdict)
  return 'X ' .. int(line - 1) .. ' ' .. verdict
end

-- What the whole cart's request was answered with before; nil if no line knows it. Half a cart is never completed.
local function replay_of(lines, fingerprint)
  local known, conflict
  for line, own in ipairs(lines) do
    if own.known then
      known = known or line
      local _, _, first_fingerprint = parse(own.record)
      if first_fingerprint ~= fingerprint then
        conflict = conflict or line
      end
    end
  end
  if not known then
    return nil
  elseif conflict then
    return refused(conflict, 'K')
  end
  local answers = {}
  for line, own in ipairs(lines) do
    if not own.known and is_held(own.meta) then
      return refused(line, 'F')
    elseif not own.known then
      return refused(known, 'K')
    end
    answers[line] = 'R ' .. own.known .. ' ' .. own.record
  end
  return table.concat(answers, '\n')
end

-- Reads what the line is decided by, and answers the error if it cannot be. What has the wrong type raises one.
local function read_line(own, buyer, request)
  own.fresh = nothing_fresh()
  own.is_taken = redis.call('HGET', own.keys[ORDERS], own.id)
  check_types(own.keys)
  local holder, fault = redis.call('HGET', own.keys[BUYERS], buyer), nil
  own.holds, own.first, own.known, own.record, fault = standing_of(own.keys, own.fresh, holder, request)
  return fault
end

-- keys: six a line. args: buyer request fingerprint[metadata] {epoch order quantity}… Answers one line a line of the cart (A or R), or
-- "X line verdict".
local function buy_cart(keys, args)
  local count = #keys / KEYS_OF_SEGMENT
  if count < 1 or count % 1 ~= 0 or #args ~= 3 + 3 * count then
    return redis.error_reply('ERR penstock: a cart has 6 keys and 3 arguments a line')
  end
  local buyer, content = args[1], args[3]
  local request = buyer .. ' ' .. args[2]
  local now = now_ms()

  -- Everything is read before anything is written; what has the wrong type raises an error here.
  local lines = {}
  for line = 1, count do
    local own_keys = keys_of(keys, line)
    local meta, fault = read_open_meta(own_keys)
    if fault then
      -- call.rs names the segment by it.
      return redis.error_reply(fault.err .. ' @' .. int(line - 1))
    end
    local at = 1 + 3 * line
    local own = { keys = own_keys, meta = meta, epoch = tonumber(args[at]), id = args[at + 1], quantity = tonumber(args[at + 2]) }
    fault = read_line(own, buyer, request)
    if fault then
      return fault
    end
    lines[line] = own
  end
  for line, own in ipairs(lines) do
    if not own.quantity or own.quantity < 1 or own.quantity % 1 ~= 0 then
      return refused(line, 'Q')
    end
  end

  local replay = replay_of(lines, string.sub(content, 1, FINGERPRINT))
  if replay then
    return replay
  end
  for line, own in ipairs(lines) do
    local refusal = refusal_of(own.meta, own.epoch, now) or shortage_of(own.meta, own.holds, own.quantity)
    if refusal then
      return refused(line, refusal)
    elseif own.is_taken then
      return redis.error_reply('TAKEN the order id ' .. own.id .. ' belongs to another order')
    end
  end

  local answers = {}
  for _, own in ipairs(lines) do
    set_dirty(own.keys)
  end
  for line, own in ipairs(lines) do
    local times = times_of(own.meta, now)
    take(own.meta, own.quantity)
    local record = 'R ' .. int(own.quantity) .. ' ' .. times .. ' ' .. content .. ' ' .. request
    add_order(own.fresh, own.id, record, buyer, int(own.holds + own.quantity), own.first, request)
    write_orders(own.keys, own.fresh)
    answers[line] = 'A ' .. int(own.meta.available) .. ' ' .. int(own.meta.version) .. ' ' .. times
  end
  for _, own in ipairs(lines) do
    write_counters(own.keys, own.meta)
  end
  return table.concat(answers, '\n')
end

redis.register_function{ function_name = 'penstock_v3_buy_cart', callback = buy_cart }
