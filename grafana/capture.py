#!/usr/bin/env python3
"""Starts a gateway on free ports, sells a unit and writes its /metrics to a file: capture.py PENSTOCK FILE

The page then holds every series a real gateway exports: one upstream with a breaker, one limit, a certificate, one sale in two segments,
payments and a downstream. A Prometheus of this machine scrapes it too, as OpenMetrics packed with gzip, and must understand all of it.
"""

import contextlib
import gzip
import http.client
import json
import pathlib
import queue
import re
import socket
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


def check_formats(admin, page):
    """What a scraper that asks for OpenMetrics and gzip gets: the same series, in the words of that format."""
    connection = http.client.HTTPConnection(admin, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1", "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        packed, headers = answer.read(), answer.headers
    if (headers["Content-Encoding"], headers.get_content_type()) != ("gzip", "application/openmetrics-text"):
        sys.exit(f"not OpenMetrics with gzip: {headers}")
    text = gzip.decompress(packed).decode()
    if not text.endswith("\n# EOF\n") or len(packed) * 4 > len(text):
        sys.exit(f"OpenMetrics: {len(text)} characters in {len(packed)} bytes, and the end is {text[-40:]!r}")
    names = lambda text: set(re.findall(r"^(\w+)(?:\{| )", text, re.M))
    if names(text) != names(page):
        sys.exit(f"OpenMetrics has other series: {sorted(names(text) ^ names(page))}")


def check_scrape(admin, folder):
    """Has a real Prometheus scrape the gateway, and asks it what it has understood."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "prometheus.json"  # JSON is YAML
    target = {"job_name": "penstock", "scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": [{"targets": [admin]}]}
    config.write_text(json.dumps({"scrape_configs": [target]}))
    process = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={own}"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def told(path):
        return json.loads(request(own, "GET", f"/api/v1/{path}")[1])["data"]

    def scraped():
        if process.poll() is not None:
            sys.exit(f"prometheus ended with {process.returncode}")
        targets = told("targets")["activeTargets"]
        if any(target["lastError"] for target in targets):
            sys.exit(f"the scrape failed: {targets}")
        return all(target["health"] == "up" for target in targets) and targets

    try:
        eventually("a scrape", scraped)
        told_of = told("metadata")
        # Units are told in OpenMetrics only: this one shows that Prometheus has chosen it.
        wanted = {"penstock_request_duration_seconds": ("histogram", "seconds"), "penstock_requests": ("counter", ""), "penstock_snapshot_bytes": ("gauge", "bytes")}
        found = {name: (told_of[name][0]["type"], told_of[name][0]["unit"]) for name in wanted if name in told_of}
        if found != wanted or not all(entry[0]["help"] for name, entry in told_of.items() if name.startswith(("penstock_", "process_"))):
            sys.exit(f"Prometheus understood {found}: {told_of}")
    finally:
        process.terminate()
        process.wait(30)


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
            eventually("/ready", lambda: request(admin, "GET", "/ready?parts=sales")[0] == 200)
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
            check_formats(admin, page)
            check_scrape(admin, pathlib.Path(folder))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


if __name__ == "__main__":
    main()
