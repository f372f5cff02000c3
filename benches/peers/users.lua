-- wrk's requests: 1,024 users in turn, so that the ring is asked anew each time. Built once; sending only picks the next.
local requests = {}
local next_request = 0

function init(args)
  for user = 0, 1023 do
    requests[user] = wrk.format("GET", "/", { ["Host"] = "localhost", ["X-User-Id"] = "user-" .. user })
  end
end

function request()
  next_request = (next_request + 1) % 1024
  return requests[next_request]
end
