#!/usr/bin/env python3
"""Starts a gateway on free ports, sells a unit and writes its /metrics to a file: capture.py PENSTOCK FILE

The page then holds every series a real gateway exports: one upstream with a breaker, one limit, a certificate, one sale in two segments,
payments and a downstream.
"""

import contextlib
import http.client
import json
import pathlib
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE_S = 60
CONFIG = """
[server]
workers = 1
trusted_headers_from = ["127.0.0.0/8"]

[[listener]]
address = "127.0.0.1:0"
tls = "self-signed"

[[listener]]
address = "127.0.0.1:0"

[[upstream]]
name = "shop"
policy = "ring-hash"
hash_on = "ip"
endpoints = [{{ address = "127.0.0.1:9" }}]

[[route]]
name = "sales"
path = "/v1/sales"
handler = "sales"
limits = ["per-ip"]

[[route]]
name = "payments"
path = "/v1/payment_intents"
handler = "payments"

[[route]]
name = "shop"
path = "/"
upstream = "shop"

[[limit]]
name = "per-ip"
key = "ip"
rate = "100/s"

[admin]
address = "127.0.0.1:0"

[seckill]
store = "embedded:{data}"
ledger = "sqlite:{data}/penstock.db"
downstream = {{ url = "http://127.0.0.1:9/orders", secret_env = "PENSTOCK_DOWNSTREAM_SECRET" }}

[payment]
api_key = {{ env = "PENSTOCK_SECRET_KEY" }}
"""

BUYER = {"X-Buyer-Id": "capture"}
SECRETS = {"PENSTOCK_SECRET_KEY": "sk_test_capture", "PENSTOCK_DOWNSTREAM_SECRET": "not-a-secret-only-long-enough"}


def bound_addresses(line):
    """The admin address and the plain listener's, if this log line is the one that tells where the gateway serves."""
    try:
        fields = json.loads(line).get("fields", {})
        return fields["admin"], re.findall(r"[\d.]+:\d+", fields["listeners"])[1]
    except (ValueError, AttributeError, KeyError, IndexError):
        return None


def request(address, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json", **dict(headers)})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def eventually(what, attempt):
    """Asks until the answer is true; the run fails if it never is."""
    deadline, seen = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            seen = attempt()
            if seen:
                return seen
        time.sleep(0.05)
    sys.exit(f"{what}: not within {PATIENCE_S} s")


def main():
    program, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "penstock.toml"
        config.write_text(CONFIG.format(data=pathlib.Path(folder) / "data"))
        process = subprocess.Popen([str(program.resolve()), "serve", "--config", str(config)], cwd=folder, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=SECRETS)
        lines, seen = queue.Queue(), []
        threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()

        def addresses_in_log():
            while not lines.empty():
                seen.append(lines.get())
                if found := bound_addresses(seen[-1]):
                    return found
            if process.poll() is not None:
                sys.exit(f"the gateway ended with {process.returncode}:\n{''.join(seen)}")
            return None

        try:
            admin, plain = eventually("the addresses in the log", addresses_in_log)
            eventually("/ready", lambda: request(admin, "GET", "/ready")[0] == 200)
            now = int(time.time() * 1000)
            sale = {"id": "capture", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "15m", "buyer_limit": 2, "currency": "usd",
                    "segments": 2, "skus": [{"sku": "one", "stock": 10, "price_minor": 100}]}
            status, answer = request(admin, "POST", "/admin/v1/sales", sale)
            if status not in (200, 201):
                sys.exit(f"the sale was not created: {status} {answer}")
            eventually("the sale open", lambda: request(plain, "GET", "/v1/sales/capture", headers=BUYER)[0] == 200)
            order = {"sku": "one", "quantity": 1}
            status, answer = request(plain, "POST", "/v1/sales/capture/orders", order, {**BUYER, "Idempotency-Key": "capture"})
            if status != 201:
                sys.exit(f"nothing was sold: {status} {answer}")
            sold = 'penstock_settlement_orders_total{outcome="settled"} 1'
            page = eventually("the order in the ledger", lambda: (text := request(admin, "GET", "/metrics")[1])
                              and "penstock_stock_available_units{" in text and sold in text and text)
            target.write_text(page)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


if __name__ == "__main__":
    main()
