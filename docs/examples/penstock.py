"""What a shop needs to sell through Penstock. Copy it: it uses the standard library only."""
import base64, contextlib, hmac, http.client, json, os, re, time, urllib.parse

EDGE, LOGIN_KEY = os.environ.get("PENSTOCK", "127.0.0.1:8080"), os.environ.get("PENSTOCK_LOGIN_KEY")
PAYMENT_KEY, HOOK_SECRET = os.environ["PENSTOCK_PAYMENT_KEY"], os.environ["PENSTOCK_DOWNSTREAM_SECRET"]


def is_signed(header, body, now_s, tolerance_s=300):
    """Whether Penstock signed exactly these bytes, and not too long ago."""
    fields = re.match(r"t=([0-9]{1,15}),v1=([0-9a-f]{64})\b", header)
    if not fields or abs(now_s - int(fields[1])) > tolerance_s:
        return False
    expected = hmac.digest(HOOK_SECRET.encode(), f"{fields[1]}.".encode() + body, "sha256").hex()
    return hmac.compare_digest(expected, fields[2])


def call(host, method, path, body=None, headers={}):
    """One call, repeated while that may help. 202 means "not known yet". The Idempotency-Key makes repeating safe."""
    for attempt in range(8):
        try:
            with contextlib.closing(http.client.HTTPConnection(host, timeout=40)) as connection:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                retry_after = answer.getheader("retry-after")
                if answer.status in (200, 201):
                    return json.loads(answer.read())
                if answer.status not in (202, 429, 502, 503, 504) and answer.getheader("stripe-should-retry") != "true":
                    raise RuntimeError(f"{method} {path}: {answer.status} {answer.read().decode()}")
        except (OSError, http.client.HTTPException):
            retry_after = None  # the connection was lost: nobody knows whether the request arrived
        time.sleep(float(retry_after or min(0.1 * 2**attempt, 5)))
    raise TimeoutError(f"{method} {path}: still not known")


def as_buyer(buyer):
    """Who buys: a header that this machine may set or, with `buyer = "jwt:sub"`, a token of the shop's login."""
    if not LOGIN_KEY:
        return {"x-buyer-id": buyer}
    coded = lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")
    claims = json.dumps({"sub": buyer, "exp": int(time.time()) + 600})
    token = coded(b'{"alg":"HS256"}') + "." + coded(claims.encode())
    signature = hmac.digest(LOGIN_KEY.encode(), token.encode(), "sha256")
    return {"authorization": f"Bearer {token}.{coded(signature)}"}


def buy(sale, sku, buyer, key):
    headers = as_buyer(buyer) | {"idempotency-key": key, "content-type": "application/json"}
    return call(EDGE, "POST", f"/v1/sales/{sale}/orders", json.dumps({"sku": sku, "quantity": 1}), headers)


def pay(order, payment_method):
    form = {"amount": order["amount_minor"], "currency": order["currency"], "metadata[order]": order["id"],
            "payment_method": payment_method, "confirm": "true"}
    headers = {"authorization": f"Bearer {PAYMENT_KEY}", "idempotency-key": f"pay-{order['id']}",
               "content-type": "application/x-www-form-urlencoded"}
    return call(EDGE, "POST", "/v1/payment_intents", urllib.parse.urlencode(form), headers)


def cancel(order, buyer):
    return call(EDGE, "DELETE", f"/v1/orders/{order['id']}", headers=as_buyer(buyer))
