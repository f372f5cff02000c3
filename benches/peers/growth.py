#!/usr/bin/env python3
"""What the past costs: the same small sale with 10^4 to 10^EXPONENT finished orders and payments of ended sales behind it.

The program makes one sale, one order and one payment; their rows in its ledger are copied, a month back. So the past is what the
program itself writes (but what it sweeps: idempotency keys), and the whole check of its books must pass. The embedded store has none of it.

    benches/peers/growth.py                                to 10^6 orders; 20 minutes, 9 GB of disk; writes report/growth.md and growth.json
    benches/peers/growth.py --ledger postgres              the same on PostgreSQL; writes report/growth-postgres.md and .json
    benches/peers/growth.py --max-exponent 7 --no-events   to 10^7 orders; an hour, 30 GB
    benches/peers/growth.py --max-exponent 5 --rounds 1    a look; --program takes another build than target/dist/penstock
    benches/peers/growth.py --nodes 1,2,4,8                what nodes cost instead (growth_nodes.py); writes report/nodes.md and nodes.json

Exit 0: report written, whatever the figures. 1: the program failed, or a check complained. 2: the program is missing, or a bad argument.
"""

import argparse
import http.client
import json
import pathlib
import statistics
import sys
import tempfile
import time
import urllib.parse

import growth_nodes
import growth_past
import peers
import sale_report
import sale_servers

PURCHASES = 200
# A whole round of the slowest timers: sales that are over are looked at every 30 s and read every 60 s.
IDLE_SECONDS = 60
# Largest past ÷ smallest: above it the past is not free.
BAR = 2
UNITS = ("ready ms", "purchase p50 ms", "purchase p99 ms", "payment p50 ms", "payment p99 ms", "reconcile ms", "idle CPU ms")
EMBEDDED = {"STORE": "embedded:data", "LEDGER": "sqlite:data/penstock.db", "DURABILITY": "durable"}
JSON, FORM = {"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}


class Program(peers.Running):
    """The program, started over a folder."""

    def __init__(self, binary, folder, processes, stores=EMBEDDED, name="penstock"):
        front, admin = peers.free_ports(2)
        text = (peers.CONFIGS / "growth.toml.tmpl").read_text()
        (folder / "penstock.toml").write_text(peers.fill(text, {"HTTP": front, "ADMIN": admin, "WORKERS": 2} | stores))
        began = time.monotonic()
        process = processes.start(name, [binary, "serve", "--config", "penstock.toml"], peers.PROXY_CORE, folder)
        super().__init__(name, process, front, admin)
        peers.wait_for_port(name, process, admin)
        self.front, self.admin = (http.client.HTTPConnection("127.0.0.1", port, timeout=300) for port in (front, admin))
        while self.call(self.admin, "GET", "/ready?parts=sales", ok=(200, 503))[0].get("ready") is not True:
            time.sleep(0.005)
        self.ready_ms, self.key = (time.monotonic() - began) * 1e3, (folder / "payment.key").read_text().strip()

    def call(self, where, method, path, body=None, headers=None, ok=(200, 201)):
        """The answer's document, and after how many milliseconds."""
        began = time.monotonic()
        where.request(method, path, body, headers or {})
        answer = where.getresponse()
        document, took = json.loads(answer.read()), (time.monotonic() - began) * 1e3
        if answer.status not in ok or document.get("ok") is False:
            raise peers.Failed(f"{method} {path}: {answer.status} {document}")
        return document, took

    def sell(self, sale, count, stock=None, segments=1):
        """A new sale, so many of it bought, then paid for: the milliseconds of each purchase and of each payment."""
        now = int(time.time() * 1000)
        document = {"id": sale, "starts_at_ms": now, "ends_at_ms": now + 3_600_000, "currency": "usd", "buyer_limit": 1, "pay_within": "15m"}
        document |= {"skus": [{"sku": "shoe", "stock": stock or count, "price_minor": 1999}], "segments": segments}
        self.call(self.admin, "POST", "/admin/v1/sales", json.dumps(document), JSON)
        calls = (JSON | {"x-buyer-id": f"buyer-{n}", "idempotency-key": f"{sale}-{n}"} for n in range(count))
        bought = [self.call(self.front, "POST", f"/v1/sales/{sale}/orders", '{"sku":"shoe","quantity":1}', headers) for headers in calls]
        while self.call(self.admin, "GET", f"/admin/v1/sales/{sale}/report")[0]["settled"] < count:
            time.sleep(0.05)
        paid = []
        for order in (order["id"] for order, _ in bought):
            form = {"amount": 1999, "currency": "usd", "metadata[order]": order, "payment_method": "pm_card_visa", "confirm": "true"}
            headers = FORM | {"authorization": f"Bearer {self.key}", "idempotency-key": f"pay-{order}"}
            paid.append(self.call(self.front, "POST", "/v1/payment_intents", urllib.parse.urlencode(form), headers)[1])
        return [took for _, took in bought], paid

    def stop(self):
        self.process.terminate()
        self.process.wait(peers.STOP_SECONDS)


def points(orders, chosen, processes, folder):
    growth_past.room(orders, chosen, folder)
    servers, stores = None, EMBEDDED
    if chosen.ledger == "postgres":
        folder.chmod(0o711)
        servers = sale_servers.Postgres(processes, folder)
        stores = EMBEDDED | {"LEDGER": servers.url()}
        servers.wait()
    program, figures = Program(chosen.program, folder, processes, stores), []
    program.sell("first", 1)
    program.stop()
    past = growth_past.Postgres(servers.query) if servers else growth_past.Sqlite(folder / "data/penstock.db")
    growth_past.grow(past, orders, chosen)
    for number in range(chosen.rounds):
        program = Program(chosen.program, folder, processes, stores)
        percentiles = [statistics.quantiles(calls, n=100) for calls in program.sell(f"new-{number}", PURCHASES)]
        reconciled = [program.call(program.admin, "GET", f"/admin/v1/sales/new-{number}/reconcile")[1] for _ in range(5)]
        before = program.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle_ms = (program.cpu_seconds() - before) * 1e3
        latencies = [calls[percent - 1] for calls in percentiles for percent in (50, 99)]
        figures.append([program.ready_ms, *latencies, statistics.median(reconciled), idle_ms])
        print(f"{orders:9,} orders, round {number + 1}:", *(f"{unit} {one:.1f} " for unit, one in zip(UNITS, figures[-1])), flush=True)
        if number + 1 == chosen.rounds:
            # Not a figure: it reads all there ever was. It shows that the copies are as the program would have written them.
            program.call(program.admin, "GET", "/admin/v1/payments/reconcile")
        program.stop()
    if servers:
        servers.stop()
    return figures


def markdown(facts, curve, ledger):
    medians = {orders: [statistics.median(column) for column in zip(*rounds)] for orders, rounds in curve.items()}
    ratios = [last / first for first, last in zip(medians[min(medians)], medians[max(medians)])]
    lines = ["# What the past costs", "", *sale_report.header(facts), ""]
    lines += [f"Medians of the rounds: {PURCHASES} purchases and as many payments, one after the other; CPU time in {IDLE_SECONDS} s without a request."]
    where = {"sqlite": "SQLite, all on core 0", "postgres": "PostgreSQL, the program on core 0, the server on core 1"}[ledger]
    lines += [f"Embedded store and {where}. Bold: the past is not free.", ""]
    lines += ["| finished orders | " + " | ".join(UNITS) + " |", "|---:" * (len(UNITS) + 1) + "|"]
    lines += [f"| {orders:,} | " + " | ".join(f"{one:,.1f}" for one in row) + " |" for orders, row in medians.items()]
    return "\n".join([*lines, "| largest ÷ smallest | " + " | ".join(f"**{one:.2f}**" if one > BAR else f"{one:.2f}" for one in ratios) + " |", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-exponent", type=int, default=6, choices=range(4, 8), help="finished orders of the last point, as a power of ten")
    parser.add_argument("--ledger", choices=("sqlite", "postgres"), default="sqlite", help="where the past is")
    parser.add_argument("--no-events", action="store_true", help="leave out the payments' events, which are most of the disk: for 10^7 orders")
    parser.add_argument("--orders-a-sale", type=int, default=1_000, choices=(10, 100, 1_000, 10_000), help="how many sales that are")
    parser.add_argument("--nodes", type=growth_nodes.counts, help="numbers of nodes on one Redis and one PostgreSQL, as 1,2,4,8")
    parser.add_argument("--rounds", type=int, default=3, help="starts over each past")
    parser.add_argument("--program", type=lambda path: pathlib.Path(path).resolve(), default=peers.PENSTOCK)
    parser.add_argument("--report", type=pathlib.Path, default=peers.HERE / "report")
    chosen, curve = parser.parse_args(), {}
    if chosen.rounds < 1 or not chosen.program.exists():
        print(f"--rounds must be at least 1, and {chosen.program} exist: cargo build --profile dist", file=sys.stderr)
        return 2
    with peers.Processes() as processes:
        try:
            if chosen.nodes:
                return growth_nodes.run(chosen, processes, Program)
            for orders in (10**exponent for exponent in range(4, chosen.max_exponent + 1)):
                with tempfile.TemporaryDirectory(prefix="penstock-growth-") as folder:
                    curve[orders] = points(orders, chosen, processes, pathlib.Path(folder))
        except (peers.Failed, OSError) as failure:
            print(f"failed: {failure}\n{processes.logs()}", file=sys.stderr)
            return 1
    facts = peers.facts("benches/peers/growth.py", chosen, {"penstock": peers.first_line([str(chosen.program), "--version"])})
    chosen.report.mkdir(parents=True, exist_ok=True)
    name = "growth" if chosen.ledger == "sqlite" else "growth-postgres"
    (chosen.report / f"{name}.json").write_text(json.dumps(facts | {"units": UNITS, "rounds": curve}, indent=2) + "\n")
    (chosen.report / f"{name}.md").write_text(markdown(facts, curve, chosen.ledger))
    print(markdown(facts, curve, chosen.ledger))
    return 0


if __name__ == "__main__":
    sys.exit(main())
