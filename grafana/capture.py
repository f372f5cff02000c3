#!/usr/bin/env python3
"""Starts a gateway on free ports, opens a sale and writes its /metrics to a file: capture.py PENSTOCK FILE

The page then holds every series a real gateway exports: one upstream with a breaker, one limit, a certificate, one sale, payments
and a downstream.
"""

import contextlib
import http.client
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE_S = 60
CONFIG = """
[server]
workers = 1

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

SECRETS = {"PENSTOCK_SECRET_KEY": "sk_test_capture", "PENSTOCK_DOWNSTREAM_SECRET": "not-a-secret-only-long-enough"}


def admin_address(line):
    """The bound admin address, if this log line is the one that tells where the gateway serves."""
    try:
        return json.loads(line).get("fields", {}).get("admin")
    except (ValueError, AttributeError):
        return None


def request(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
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

        def address_in_log():
            while not lines.empty():
                seen.append(lines.get())
                if found := admin_address(seen[-1]):
                    return found
            if process.poll() is not None:
                sys.exit(f"the gateway ended with {process.returncode}:\n{''.join(seen)}")
            return None

        try:
            admin = eventually("the admin address in the log", address_in_log)
            eventually("/ready", lambda: request(admin, "GET", "/ready")[0] == 200)
            now = int(time.time() * 1000)
            sale = {"id": "capture", "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "15m", "buyer_limit": 2, "currency": "usd",
                    "skus": [{"sku": "one", "stock": 10, "price_minor": 100}]}
            status, answer = request(admin, "POST", "/admin/v1/sales", sale)
            if status not in (200, 201):
                sys.exit(f"the sale was not created: {status} {answer}")
            page = eventually("the stock of the sale in /metrics", lambda: (text := request(admin, "GET", "/metrics")[1])
                              and "penstock_stock_available_units{" in text and text)
            target.write_text(page)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


if __name__ == "__main__":
    main()
