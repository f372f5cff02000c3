-- wrk's purchases: every request another buyer under another key. MODE "cached" asks nginx for its fixed answer instead.
local mode, round = "buy", "0"
local count = 0
local headers = { ["Host"] = "localhost", ["Content-Type"] = "application/json" }

function init(args)
  mode, round = args[1], args[2]
end

function request()
  if mode == "cached" then
    return wrk.format("GET", "/")
  end
  count = count + 1
  headers["X-Buyer-Id"] = "b" .. round .. "-" .. count
  headers["Idempotency-Key"] = "k" .. round .. "-" .. count
  return wrk.format("POST", "/v1/sales/" .. mode .. "/orders", headers, '{"sku":"shoe","quantity":1}')
end
