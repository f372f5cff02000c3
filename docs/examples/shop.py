"""A shop behind Penstock: creates a sale, buys, pays, cancels, and hears of it by webhook until it is stopped. Standard library only."""
import base64, hashlib, hmac, http.client, http.server, json, os, threading, time, urllib.parse

EDGE, ADMIN = os.environ.get("PENSTOCK", "127.0.0.1:8080"), os.environ.get("PENSTOCK_ADMIN", "127.0.0.1:9900")
PAYMENT_KEY, HOOK_SECRET = os.environ["PENSTOCK_PAYMENT_KEY"], os.environ["PENSTOCK_DOWNSTREAM_SECRET"]
LOGIN_KEY, PORT = os.environ.get("PENSTOCK_LOGIN_KEY"), int(os.environ.get("PORT", "3000"))
TOLERANCE_S = 300
orders, seen, news = {}, set(), threading.Condition()  # in a real shop: tables of one database


def verify(header, body, now_s):
    """Whether Penstock signed these very bytes, and lately."""
    fields = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    t = fields.get("t", "")
    if not (t.isascii() and t.isdigit()) or abs(now_s - int(t)) > TOLERANCE_S:
        return False
    expected = hmac.new(HOOK_SECRET.encode(), t.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), fields.get("v1", "").encode())


class Hook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))  # the raw bytes: JSON written anew has another signature
        if self.path != "/hooks/penstock" or not verify(self.headers.get("penstock-signature", ""), body, time.time()):
            return self.answer(401)
        event = json.loads(body)
        with news:  # in a real shop: one transaction, with the event's id as a primary key
            if event["id"] not in seen:
                seen.add(event["id"])
                order = event["data"]["order"]
                if orders.get(order["id"]) not in ("paid", "released", "refused"):  # an old event may come again: never go back
                    orders[order["id"]] = order["status"]
                print("event", event["type"], order["id"], flush=True)
                news.notify_all()
        self.answer(200)  # only now: any 2xx says that the event need not come again

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def call(host, method, path, body=None, headers={}):
    """One call, sent again as it is while that may help: the Idempotency-Key makes repeating a POST harmless."""
    for attempt in range(8):
        connection = http.client.HTTPConnection(host, timeout=40)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            status, text, wait = answer.status, answer.read(), answer.getheader("retry-after")
            document = json.loads(text)
            if status in (200, 201):
                return document
            # 202: not known yet, which is neither sold nor refused; the same key finds out.
            if status not in (202, 429, 503) and answer.getheader("stripe-should-retry") != "true":
                raise SystemExit(f"{method} {path}: {status} {document.get('code') or document['error']}")
        except (OSError, http.client.HTTPException):
            wait = None  # nobody knows whether it arrived
        finally:
            connection.close()
        time.sleep(float(wait or min(0.1 * 2**attempt, 5)))
    raise SystemExit(f"{method} {path}: gave up")


def as_buyer(buyer):
    """Who buys: a header that this machine may set, or, with `buyer = "jwt:sub"`, a token of the shop's login."""
    if not LOGIN_KEY:
        return {"x-buyer-id": buyer}
    coded = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    token = coded(b'{"alg":"HS256"}') + b"." + coded(json.dumps({"sub": buyer, "exp": int(time.time()) + 600}).encode())
    token += b"." + coded(hmac.digest(LOGIN_KEY.encode(), token, "sha256"))
    return {"authorization": "Bearer " + token.decode()}


def buy(sale, buyer, key):
    headers = as_buyer(buyer) | {"idempotency-key": key, "content-type": "application/json"}
    return call(EDGE, "POST", f"/v1/sales/{sale}/orders", json.dumps({"sku": "shoe", "quantity": 1}), headers)


def pay(order):
    form = {"amount": order["amount_minor"], "currency": order["currency"], "metadata[order]": order["id"], "payment_method": "pm_card_visa", "confirm": "true"}
    headers = {"authorization": f"Bearer {PAYMENT_KEY}", "idempotency-key": f"pay-{order['id']}", "content-type": "application/x-www-form-urlencoded"}
    return call(EDGE, "POST", "/v1/payment_intents", urllib.parse.urlencode(form), headers)


def heard(order, status):
    with news:
        if not news.wait_for(lambda: orders.get(order["id"]) == status, timeout=30):
            raise SystemExit(f"no event of {order['id']}: {status}")


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    now = int(time.time() * 1000)
    sale = {"id": f"demo-{now}", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m", "buyer_limit": 2,
            "currency": "usd", "skus": [{"sku": "shoe", "stock": 100, "price_minor": 1999}]}
    call(ADMIN, "POST", "/admin/v1/sales", json.dumps(sale))
    first, again = buy(sale["id"], "ann", "click-1"), buy(sale["id"], "ann", "click-1")
    assert first["id"] == again["id"], "one key, one order"
    print("intent", pay(first)["status"])
    # Answers as soon as the order is no longer reserved, at the latest after 20 seconds.
    print("order", call(EDGE, "GET", f"/v1/orders/{first['id']}?wait=20s&status=reserved", headers=as_buyer("ann"))["status"])
    heard(first, "paid")
    other = buy(sale["id"], "ann", "click-2")
    print("order", call(EDGE, "DELETE", f"/v1/orders/{other['id']}", headers=as_buyer("ann"))["status"])
    heard(other, "released")
    print("done", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
