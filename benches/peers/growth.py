#!/usr/bin/env python3
"""What the past costs: the same small sale with 10^4 to 10^EXPONENT finished orders and payments of ended sales behind it.

The program makes one sale, one order and one payment; their rows in its ledger are copied, a month back. So the past is what the
program itself writes (but what it sweeps: idempotency keys), and the whole check of its books must pass. The embedded store has none of it.
All pasts are made first; then each round takes one after another, so that what else the machine does meets all of them alike.

    benches/peers/growth.py                                to 10^6 orders; half an hour, 11 GB of disk; writes report/growth.md and growth.json
    benches/peers/growth.py --ledger postgres              the same on PostgreSQL; writes report/growth-postgres.md and .json
    benches/peers/growth.py --max-exponent 7 --no-events --orders-a-sale 10000
                                                           to 10^7 orders in 1,000 sales; an hour, 20 GB (PostgreSQL: 35 GB)
    benches/peers/growth.py --max-exponent 5 --rounds 1    a look; --program takes another build than target/dist/penstock
    benches/peers/growth.py --keep FOLDER                  the pasts are made in FOLDER, stay there, and the next run takes them
    benches/peers/growth.py --nodes 1,2,4,8                what nodes cost instead (growth_nodes.py); writes report/nodes.md and nodes.json

Exit 0: report written, whatever the figures. 1: the program failed, or a check complained. 2: the program is missing, or a bad argument.
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import re
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

PURCHASES, RECONCILIATIONS = 500, 200
# Starts and rebuilds of a round, each by itself as noisy as the machine.
STARTS = 5
# A whole round of the slowest timers: sales that are over are looked at every 30 s and read every 60 s.
IDLE_SECONDS = 60
# Largest past ÷ smallest: above it the past is not free.
BAR = 2
UNITS = ("ready ms", "purchase p50 ms", "purchase p99 ms", "payment p50 ms", "payment p99 ms", "order CPU ms", "reconcile ms")
UNITS += ("reconcile CPU ms", "rebuild ms", "idle CPU ms")
# The sum and the number of rebuilds, of the program's metrics.
REBUILT = re.compile(r"^penstock_recovery_rebuild_seconds_(sum|count) (\S+)", re.MULTILINE)
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
        peers.wait_for_port(name, process, admin, pause_s=0.002)
        # The whole check of 10^7 payments takes minutes.
        self.front, self.admin = (http.client.HTTPConnection("127.0.0.1", port, timeout=1_800) for port in (front, admin))
        while self.call(self.admin, "GET", "/ready?parts=sales", ok=(200, 503))[0].get("ready") is not True:
            time.sleep(0.002)
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

    def rebuild_ms(self, sale):
        """How long a rebuild took, once the store has the sale again."""
        sold = lambda report: "skus" in report and report["skus"][0]["sold"]
        while sold(self.call(self.admin, "GET", f"/admin/v1/sales/{sale}/report", ok=(200, 503))[0]) != PURCHASES:
            time.sleep(0.02)
        while not (rebuilt := self.rebuilds())["count"]:
            time.sleep(0.02)
        return rebuilt["sum"] / rebuilt["count"] * 1e3

    def rebuilds(self):
        """Their sum of seconds and their count."""
        self.admin.request("GET", "/metrics")
        return {name: float(value) for name, value in REBUILT.findall(self.admin.getresponse().read().decode())}

    def stop(self):
        self.process.terminate()
        self.process.wait(peers.STOP_SECONDS)


class Past:
    """So many finished orders behind the program, and the rounds over them."""

    def __init__(self, orders, chosen, processes, root):
        self.orders, self.chosen, self.processes = orders, chosen, processes
        self.folder, self.stores, self.servers = root / f"{chosen.ledger}-{orders}", EMBEDDED, None
        made = self.folder / "made"
        self.folder.mkdir(exist_ok=True)
        if not made.exists():
            growth_past.room(orders, chosen, self.folder)
        if chosen.ledger == "postgres":
            self.servers = sale_servers.Postgres(processes, self.folder)
            self.stores = EMBEDDED | {"LEDGER": self.servers.url()}
            self.servers.wait()
        if not made.exists():
            began, program = time.monotonic(), self.start()
            program.sell("first", 1)
            program.stop()
            ledger = growth_past.Postgres(self.servers.query) if self.servers else growth_past.Sqlite(self.folder / "data/penstock.db")
            growth_past.grow(ledger, orders, chosen)
            made.touch()
            print(f"{orders:9,} orders made in {time.monotonic() - began:.0f} s", flush=True)

    def start(self):
        return Program(self.chosen.program, self.folder, self.processes, self.stores)

    def lose_store(self):
        """Takes the store's orders and stock away, not its name."""
        for pattern in ("journal-*.log", "snapshot-*.bin"):
            for file in (self.folder / "data").glob(pattern):
                file.unlink()

    def round(self, number):
        """The figures of one sale, one rest, and some starts and rebuilds."""
        program, sale = self.start(), f"new-{time.time_ns():x}"
        cpu_ms = lambda: (program.cpu_seconds() + (self.servers.cpu_seconds() if self.servers else 0)) * 1e3
        before = cpu_ms()
        percentiles = [statistics.quantiles(calls, n=100) for calls in program.sell(sale, PURCHASES)]
        sold = cpu_ms()
        reconciled = [program.call(program.admin, "GET", f"/admin/v1/sales/{sale}/reconcile")[1] for _ in range(RECONCILIATIONS)]
        compared = cpu_ms()
        time.sleep(IDLE_SECONDS)
        idle_ms = cpu_ms() - compared
        program.stop()
        starts, rebuilds = [program.ready_ms], []
        for _ in range(STARTS - 1):
            program = self.start()
            starts.append(program.ready_ms)
            program.stop()
        for _ in range(STARTS):
            self.lose_store()
            program = self.start()
            rebuilds.append(program.rebuild_ms(sale))
            program.stop()
        latencies = [calls[percent - 1] for calls in percentiles for percent in (50, 99)]
        figures = [statistics.median(starts), *latencies, (sold - before) / PURCHASES, statistics.median(reconciled)]
        figures += [(compared - sold) / RECONCILIATIONS, statistics.median(rebuilds), idle_ms]
        print(f"{self.orders:9,} orders, round {number + 1}:", *(f"{unit} {one:.1f} " for unit, one in zip(UNITS, figures)), flush=True)
        return figures

    def check(self):
        """Not a figure: it reads all there ever was. It shows that the copies are as the program would have written them."""
        program = self.start()
        took = program.call(program.admin, "GET", "/admin/v1/payments/reconcile")[1]
        print(f"{self.orders:9,} orders: the books balance, {took / 1e3:.0f} s", flush=True)
        program.stop()


def curve_of(chosen, processes, root):
    """The rounds over each past: figures by round by number of orders."""
    pasts = [Past(10**exponent, chosen, processes, root) for exponent in range(4, chosen.max_exponent + 1)]
    curve = {past.orders: [] for past in pasts}
    for number in range(chosen.rounds):
        for past in pasts:
            curve[past.orders].append(past.round(number))
    for past in pasts:
        past.check()
        if past.servers:
            past.servers.stop()
    return curve


def markdown(facts, curve, ledger):
    medians = {orders: [statistics.median(column) for column in zip(*rounds)] for orders, rounds in curve.items()}
    ratios = [last / first for first, last in zip(medians[min(medians)], medians[max(medians)])]
    lines = ["# What the past costs", "", *sale_report.header(facts), ""]
    lines += [f"Medians of the rounds: {PURCHASES} purchases and as many payments, one after the other; CPU time in {IDLE_SECONDS} s without a request."]
    lines += ["A round takes each past in turn. CPU time is the program's and the ledger's; an order is bought, settled and paid for in it."]
    lines += ["A rebuild fills the emptied store from the ledger; its time is the mean of all sales of the rounds so far."]
    where = {"sqlite": "SQLite, all on core 0", "postgres": "PostgreSQL, the program on core 0, the servers on core 1"}[ledger]
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
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="where pasts are made, stay, and are taken from")
    parser.add_argument("--program", type=lambda path: pathlib.Path(path).resolve(), default=peers.PENSTOCK)
    parser.add_argument("--report", type=pathlib.Path, default=peers.HERE / "report")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or not chosen.program.exists():
        print(f"--rounds must be at least 1, and {chosen.program} exist: cargo build --profile dist", file=sys.stderr)
        return 2
    with peers.Processes() as processes:
        try:
            if chosen.nodes:
                return growth_nodes.run(chosen, processes, Program)
            with contextlib.ExitStack() as stack:
                root = chosen.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-growth-")))
                root.mkdir(parents=True, exist_ok=True)
                # PostgreSQL has a user of its own.
                root.chmod(0o711)
                curve = curve_of(chosen, processes, root.resolve())
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
