
-- What buyers have, and what one call adds to it.
--
-- Most buyers order once. So the first order stands in the same entry as the units: who has no entry has never ordered, and needs
-- neither a look at the requests nor an entry there.

-- "units first" in pieces, or nil.
local function parse_holder(text)
  local units, first = string.match(text, '^(%d+) (%S+)$')
  return tonumber(units), first
end

-- What one call has accepted: to be found by what comes later in it, and to be written at its end.
local function nothing_fresh()
  return { records = {}, holders = {}, requests = {}, new_orders = {}, new_holders = {}, new_requests = {} }
end

-- The order of a request ("buyer request") and its record, nil where it has none; the third is the error to answer with. `first` is
-- the first order of its buyer.
local function order_of(keys, fresh, first, request)
  local id = first
  local record = fresh.records[id] or redis.call('HGET', keys[ORDERS], id)
  -- No id contains a space, so only the same two words end like this.
  if record and string.sub(record, -#request - 1) ~= ' ' .. request then
    id = fresh.requests[request] or redis.call('HGET', keys[REQUESTS], request)
    if not id then
      return nil, nil, nil
    end
    record = fresh.records[id] or redis.call('HGET', keys[ORDERS], id)
  end
  if not record then
    return nil, nil, corrupt('INV-ORDER-2: a request points to an order that does not exist')
  end
  return id, record, nil
end

-- A buyer's live units, his first order, and the order and the record of his request; the last is the error to answer with. `holder`
-- is his entry, if he has one.
local function standing_of(keys, fresh, holder, request)
  if not holder then
    return 0, nil, nil, nil, nil
  end
  local units, first = parse_holder(holder)
  if not units then
    return nil, nil, nil, nil, corrupt('the units of a buyer are unreadable')
  end
  return units, first, order_of(keys, fresh, first, request)
end

-- The units of a buyer after it, as text. `first` and `request` are nil for the first order of a buyer.
local function add_order(fresh, id, record, buyer, units, first, request)
  local holder = units .. ' ' .. (first or id)
  local at = #fresh.new_orders
  fresh.records[id], fresh.holders[buyer] = record, holder
  fresh.new_orders[at + 1], fresh.new_orders[at + 2] = id, record
  fresh.new_holders[at + 1], fresh.new_holders[at + 2] = buyer, holder
  if first then
    at = #fresh.new_requests
    fresh.requests[request] = id
    fresh.new_requests[at + 1], fresh.new_requests[at + 2] = request, id
  end
end

-- Were the server to stop half way, whatever can be replayed is on the queue, and a rebuild finds it there. Answers the last position.
local function write_orders(keys, fresh)
  local last
  for i = 1, #fresh.new_orders, 2 do
    last = redis.call('XADD', keys[STREAM], '*', 'o', fresh.new_orders[i])
  end
  redis.call('HSET', keys[ORDERS], unpack(fresh.new_orders))
  redis.call('HSET', keys[BUYERS], unpack(fresh.new_holders))
  if #fresh.new_requests > 0 then
    redis.call('HSET', keys[REQUESTS], unpack(fresh.new_requests))
  end
  return last
end

-- Raises WRONGTYPE where a key that is written and was not read is no such thing.
local function check_types(keys)
  redis.call('HLEN', keys[REQUESTS])
  redis.call('XLEN', keys[STREAM])
end
