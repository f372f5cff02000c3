"""The examples of docs/integrate.md, run end to end: each shop against a real Penstock, buyers named by a header and by a token.

The page shows the very files that run here. Needs `node` and the debug program that `cargo test` builds.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import pathlib
import re
import sys
import tempfile
import threading
import time
import unittest

from running import PENSTOCK, Program, free_port, served

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
HOOK_SECRET, PAYMENT_KEY, LOGIN_KEY = "whsec_of_the_examples_test", "sk_test_of_the_examples", "login-key-of-the-examples-test"
CONFIG = """
[server]
workers = 1
trusted_headers_from = ["127.0.0.0/8"]

[[listener]]
address = "127.0.0.1:0"

[[route]]
name = "sales"
path = "/v1/sales"
handler = "sales"

[[route]]
name = "orders"
path = "/v1/orders"
handler = "sales"

[[route]]
name = "payments"
path = "/v1/payment_intents"
handler = "payments"

[admin]
address = "127.0.0.1:0"

[seckill]
store = "embedded:data"
ledger = "sqlite:data/penstock.db"
{buyer}

[seckill.downstream]
url = "http://127.0.0.1:{hook}/hooks/penstock"
secret_env = "PENSTOCK_DOWNSTREAM_SECRET"

[payment]
api_key = {{ env = "PENSTOCK_PAYMENT_KEY" }}
"""
BY_HEADER = 'buyer = "header:x-buyer-id"'
BY_TOKEN = 'buyer = "jwt:sub"\njwt = { algorithm = "HS256", key_env = "PENSTOCK_LOGIN_KEY" }'

# What a buyer does on a page: two clicks, one click too many, and a cancellation while the events are read.
PAGE = """
const { buy, follow } = await import(process.env.PAGE);
const { TOKEN } = process.env, base = `http://${process.env.PENSTOCK}`;
const order = await buy(TOKEN, "page", "shoe", "click", base);
console.log("same", (await buy(TOKEN, "page", "shoe", "click", base)).id === order.id);
await buy(TOKEN, "page", "shoe", "another", base).catch((error) => console.log("refused", error.code));
await follow(TOKEN, order.id, ({ id, status }) => {
  console.log("told", status);
  if (status === "reserved") fetch(`${base}/v1/orders/${id}`, { method: "DELETE", headers: { authorization: `Bearer ${TOKEN}` } });
}, base);
await follow("no-token", order.id, () => {}, base).catch(() => console.log("stranger", true));
console.log("done");
"""

# One purchase and one refused one, with the client modules that a shop copies.
CLIENTS = {
    "penstock.py": [sys.executable, "-c", """
import os, sys
sys.path.insert(0, os.environ["EXAMPLES"])
import penstock
print(penstock.buy("spring", "shoe", "ann", "click")["id"])
try:
    penstock.buy("spring", "shoe", "ann", "another")
except RuntimeError as error:
    print("sold_out" in str(error))
print("done", flush=True)
"""],
    "penstock.mjs": ["node", "--input-type=module", "--eval", """
const { buy } = await import(`file://${process.env.EXAMPLES}/penstock.mjs`);
console.log((await buy("spring", "shoe", "ann", "click")).id);
await buy("spring", "shoe", "ann", "another").catch((error) => console.log(error.message.includes("sold_out") ? "True" : error));
console.log("done");
"""],
}
# What a purchase may meet before its order: status, headers, body. None: the connection is cut.
AT_ONCE = {"retry-after": "0"}
UNSETTLED = [None, (202, AT_ONCE, "{}"), (429, AT_ONCE, "{}"), (503, {}, "{}"), (502, AT_ONCE, "<html>"), (504, AT_ONCE, ""),
             (409, AT_ONCE | {"stripe-should-retry": "true"}, "{}")]


class Unsettled(http.server.BaseHTTPRequestHandler):
    """Answers one purchase in every way that must be repeated, then with its order, and the next purchase with a refusal."""

    def do_POST(self):
        asked = self.server.asked
        asked.append((self.headers["idempotency-key"], self.headers["x-buyer-id"], self.rfile.read(int(self.headers["content-length"]))))
        answers = [*UNSETTLED, (201, {}, '{"id": "ord_1"}'), (409, {}, '{"code": "sold_out"}')]
        if answer := answers[len(asked) - 1]:
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def signed(body, at_s, secret=HOOK_SECRET):
    tag = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={tag}"


def token(buyer):
    coded = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    text = coded(b'{"alg":"HS256"}') + b"." + coded(json.dumps({"sub": buyer, "exp": int(time.time()) + 600}).encode())
    return (text + b"." + coded(hmac.digest(LOGIN_KEY.encode(), text, "sha256"))).decode()


def deliver(port, body, signature):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json"} | ({"penstock-signature": signature} if signature is not None else {})
        connection.request("POST", "/hooks/penstock", body, headers)
        return connection.getresponse().status


class Examples(unittest.TestCase):
    def setUp(self):
        self.assertTrue(PENSTOCK.exists(), f"{PENSTOCK} is missing: cargo test --workspace --no-run builds it")
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def start(self, command, environment):
        program = Program(command, self.folder, environment)
        self.addCleanup(program.stop)
        return program

    def serve(self, buyer):
        """A Penstock; what its shop needs to know."""
        hook = free_port()
        config = pathlib.Path(self.folder) / "penstock.toml"
        config.write_text(CONFIG.format(hook=hook, buyer=buyer))
        known = {"PENSTOCK_PAYMENT_KEY": PAYMENT_KEY, "PENSTOCK_DOWNSTREAM_SECRET": HOOK_SECRET} | ({"PENSTOCK_LOGIN_KEY": LOGIN_KEY} if buyer == BY_TOKEN else {})
        listener, admin = self.start([str(PENSTOCK), "serve", "--config", str(config)], known).until(served)
        return known | {"PENSTOCK": listener, "PENSTOCK_ADMIN": f"http://{admin}", "PORT": str(hook)}

    def run_example(self, command, buyer):
        known = self.serve(buyer)
        shop = self.start(command, known)
        shop.until(lambda line: line == "done\n")
        self.check_outcome(shop.seen)
        self.check_signatures(shop, int(known["PORT"]))

    def check_outcome(self, lines):
        words = [line.split() for line in lines]
        told = [tuple(word) for word in words if word[0] != "event"]
        self.assertEqual(told, [("intent", "succeeded"), ("order", "paid"), ("order", "released"), ("done",)])
        events = [(kind, order) for _, kind, order in (word for word in words if word[0] == "event")]
        paid = next(order for kind, order in events if kind == "order.paid")
        released = next(order for kind, order in events if kind == "order.released")
        self.assertEqual(set(events), {("order.settled", paid), ("order.paid", paid), ("order.settled", released), ("order.released", released)})
        self.assertEqual(len(events), 4)
        self.assertNotEqual(paid, released)

    def check_signatures(self, shop, hook):
        """Forged, old and unsigned deliveries are refused; a good one is taken, and acted on once."""
        now = int(time.time())
        event = {"id": "evt_forged", "object": "event", "type": "order.paid", "created_at_ms": now * 1000, "data": {"order": {"id": "ord_forged", "status": "paid"}}}
        body = json.dumps(event).encode()
        good = signed(body, now)
        refused = {"no signature": None, "empty": "", "another secret": signed(body, now, "another-secret-of-16"), "another body": signed(body + b" ", now),
                   "a fresh time over an old tag": good.replace(f"t={now}", f"t={now + 1}"), "too old": signed(body, now - 301), "from the future": signed(body, now + 330),
                   "no tag": f"t={now}", "no time": good.split(",")[1], "a tag that is none": f"t={now},v1=xyz", "rubbish": "=,=,,t"}
        for what, signature in refused.items():
            with self.subTest(what):
                self.assertEqual(deliver(hook, body, signature), 401)
        before = len(shop.seen)
        self.assertEqual([deliver(hook, body, good), deliver(hook, body, good)], [200, 200])
        # Something after it in the same stream: what was printed up to here is all there is.
        last = json.dumps(event | {"id": "evt_last", "type": "order.released"}).encode()
        self.assertEqual(deliver(hook, last, signed(last, now)), 200)
        shop.until(lambda line: "order.released ord_forged" in line)
        self.assertEqual(shop.seen[before:], ["event order.paid ord_forged\n", "event order.released ord_forged\n"])

    def test_the_python_shop_with_buyers_in_a_header(self):
        self.run_example([sys.executable, str(EXAMPLES / "shop.py")], BY_HEADER)

    def test_the_python_shop_with_buyers_in_a_token(self):
        self.run_example([sys.executable, str(EXAMPLES / "shop.py")], BY_TOKEN)

    def test_the_node_shop_with_buyers_in_a_header(self):
        self.run_example(["node", str(EXAMPLES / "shop.mjs")], BY_HEADER)

    def test_the_node_shop_with_buyers_in_a_token(self):
        self.run_example(["node", str(EXAMPLES / "shop.mjs")], BY_TOKEN)

    def test_the_page_buys_and_follows_its_order_with_a_token(self):
        known = self.serve(BY_TOKEN)
        now = int(time.time() * 1000)
        sale = {"id": "page", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m", "buyer_limit": 1, "currency": "usd",
                "skus": [{"sku": "shoe", "stock": 9, "price_minor": 1999}]}
        connection = http.client.HTTPConnection(known["PENSTOCK_ADMIN"].removeprefix("http://"), timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/admin/v1/sales", json.dumps(sale))
            self.assertEqual(connection.getresponse().status, 201)
        page = self.start(["node", "--input-type=module", "--eval", PAGE], known | {"PAGE": (EXAMPLES / "page.mjs").as_uri(), "TOKEN": token("ann")})
        page.until(lambda line: line == "done\n")
        self.assertEqual(page.seen, ["same true\n", "refused buyer_limit\n", "told reserved\n", "told released\n", "stranger true\n", "done\n"])


class Clients(unittest.TestCase):
    def test_a_client_repeats_what_is_not_settled_with_the_same_key_and_nothing_else(self):
        for name, command in CLIENTS.items():
            with self.subTest(name), http.server.HTTPServer(("127.0.0.1", 0), Unsettled) as server, tempfile.TemporaryDirectory() as folder:
                server.asked = []
                threading.Thread(target=server.serve_forever, daemon=True).start()
                self.addCleanup(server.shutdown)
                known = {"PENSTOCK": f"127.0.0.1:{server.server_port}", "PENSTOCK_PAYMENT_KEY": PAYMENT_KEY, "PENSTOCK_DOWNSTREAM_SECRET": HOOK_SECRET}
                shop = Program(command, folder, known | {"EXAMPLES": str(EXAMPLES)})
                self.addCleanup(shop.stop)
                shop.until(lambda line: line == "done\n")
                self.assertEqual(shop.seen, ["ord_1\n", "True\n", "done\n"])
                body = server.asked[0][2]
                self.assertEqual(json.loads(body), {"sku": "shoe", "quantity": 1})
                self.assertEqual(server.asked, [("click", "ann", body)] * (len(UNSETTLED) + 1) + [("another", "ann", body)])


class Page(unittest.TestCase):
    def test_the_delivery_on_the_page_is_signed_as_it_says(self):
        page = (ROOT / "docs" / "integrate.md").read_text()
        signature, body = re.search(r"^penstock-signature: (.*)\n\n(.*)$", page, re.M).groups()
        secret = re.search(r"its secret is `(.*?)`", page).group(1)
        self.assertEqual(signed(body.encode(), int(signature[2:].split(",")[0]), secret), signature)

    def test_the_page_shows_the_files_that_run(self):
        page = (ROOT / "docs" / "integrate.md").read_text()
        for language, names in (("python", ["penstock.py", "shop.py"]), ("js", ["penstock.mjs", "shop.mjs"]), ("javascript", ["page.mjs"])):
            shown = re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)
            with self.subTest(language):
                self.assertEqual(shown, [(EXAMPLES / name).read_text() for name in names])

    def test_a_client_and_a_shop_have_at_most_sixty_lines_each(self):
        for name in ("penstock.py", "shop.py", "penstock.mjs", "shop.mjs"):
            lines = (EXAMPLES / name).read_text().splitlines()
            with self.subTest(name):
                self.assertLessEqual(len(lines), 60)
                self.assertLessEqual(max(map(len, lines)), 120)


if __name__ == "__main__":
    unittest.main()
