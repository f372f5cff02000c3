"""A shop behind Penstock: creates a sale, buys, pays, cancels, and takes the webhook until it is stopped."""
import http.server, json, os, threading, time
from penstock import EDGE, as_buyer, buy, call, cancel, is_signed, pay

ADMIN = os.environ.get("PENSTOCK_ADMIN", "http://127.0.0.1:9900").removeprefix("http://")
seen, orders, news = set(), {}, threading.Condition()  # a real shop has two tables of one database


def take(event):
    """A real shop does this in one transaction, with the event's id as a primary key."""
    order = event["data"]["order"]
    with news:
        if event["id"] in seen:
            return  # every event may come again
        seen.add(event["id"])
        if orders.get(order["id"]) not in ("paid", "released", "refused"):  # never go back: events may come late
            orders[order["id"]] = order["status"]
        print("event", event["type"], order["id"], flush=True)
        news.notify_all()


class Hook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_message = lambda *_: None  # the events are printed, not the requests

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))  # the raw bytes are what is signed
        signature = self.headers.get("penstock-signature", "")
        is_ours = self.path == "/hooks/penstock" and is_signed(signature, body, time.time())
        if is_ours:
            take(json.loads(body))
        self.send_response(200 if is_ours else 401)  # after `take`: 200 says that the event need not come again
        self.send_header("content-length", "0")
        self.end_headers()


def until(order, status):
    with news:
        if not news.wait_for(lambda: orders.get(order["id"]) == status, timeout=30):
            raise TimeoutError(f"no webhook said that {order['id']} is {status}")


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Hook)
threading.Thread(target=server.serve_forever, daemon=True).start()
now = int(time.time() * 1000)
sale = {"id": f"demo-{now}", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m",
        "buyer_limit": 2, "currency": "usd", "skus": [{"sku": "shoe", "stock": 100, "price_minor": 1999}]}
call(ADMIN, "POST", "/admin/v1/sales", json.dumps(sale))
order = buy(sale["id"], "shoe", "ann", "click-1")
assert buy(sale["id"], "shoe", "ann", "click-1")["id"] == order["id"], "one key, one order"
print("intent", pay(order, "pm_card_visa")["status"])
# Answers as soon as the order is no longer reserved, at the latest after 20 seconds.
changed = call(EDGE, "GET", f"/v1/orders/{order['id']}?wait=20s&status=reserved", headers=as_buyer("ann"))
print("order", changed["status"])
until(order, "paid")
other = buy(sale["id"], "shoe", "ann", "click-2")
print("order", cancel(other, "ann")["status"])
until(other, "released")
print("done", flush=True)
threading.Event().wait()
