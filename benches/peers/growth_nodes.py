"""What nodes cost: the same sale on one Redis and one PostgreSQL with more and more nodes, each a process, and what each does at rest.

Once without a past, once with BEHIND finished orders in the ledger: neither the nodes nor the past may make the other dear.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import tempfile
import time

import growth_past
import peers
import sale_report
import sale_servers

PURCHASES, STOCK, SEGMENTS = 200, 10_000, 16
# Until every segment is at rest on every node, and how long that is looked at: a whole round of the slowest timers.
REST_SECONDS, IDLE_SECONDS = 15, 60
BEHIND = (0, 100_000)
# The first of a purchase: bought, settled and paid for while the other nodes do what they do at rest. The others at rest, of one node.
UNITS = ("transactions a purchase", "store calls a purchase", "purchase p50 ms")
UNITS += ("idle CPU ms/s a node", "store calls/s a node", "transactions/s a node", "rows read/s a node")
LEDGER = "SELECT xact_commit + xact_rollback, tup_returned + tup_fetched FROM pg_stat_database WHERE datname = 'postgres'"


def counts(text):
    """Numbers of nodes, ascending."""
    numbers = sorted({int(word) for word in text.split(",")})
    if numbers[0] < 1 or numbers[-1] > 64:
        raise argparse.ArgumentTypeError("1 to 64 nodes")
    return numbers


class Servers:
    """One Redis and one PostgreSQL, and how much was asked of them."""

    def __init__(self, processes, folder):
        self.redis, self.postgres = sale_servers.Redis("redis", processes, folder), sale_servers.Postgres(processes, folder)
        self.query = self.postgres.query
        self.postgres.wait()

    def store_calls(self):
        lines = self.redis.cli("info", "commandstats").splitlines()
        calls = (line.partition("calls=")[2].partition(",")[0] for line in lines if line.startswith("cmdstat_fcall"))
        return sum(int(number) for number in calls)

    def ledger(self):
        """Transactions, and rows read for them."""
        return [int(number) for number in self.query(LEDGER).split("|")]

    def asked(self):
        return [self.store_calls(), *self.ledger()]


def point(number, behind, chosen, processes, folder, program):
    """The figures of one number of nodes over one past."""
    folder.mkdir()
    servers = Servers(processes, folder)
    stores = {"STORE": servers.redis.url(), "LEDGER": servers.postgres.url(), "DURABILITY": "fast"}
    homes = [folder / f"node-{at}" for at in range(number)]
    for home in homes:
        home.mkdir()
    start = lambda home: program(chosen.program, home, processes, stores, f"penstock-{number}-{home.name}")
    first = start(homes[0])
    if behind:
        first.sell("first", 1)
        first.stop()
        growth_past.grow(growth_past.Postgres(servers.query), behind, chosen)
        first = start(homes[0])
    for home in homes[1:]:
        # One key for all, as in a cluster.
        shutil.copy(homes[0] / "payment.key", home / "payment.key")
    nodes = [first, *(start(home) for home in homes[1:])]
    before = servers.asked()
    bought, _ = nodes[0].sell("sale", PURCHASES, STOCK, SEGMENTS)
    calls, transactions, _ = (after - first for after, first in zip(servers.asked(), before))
    # As the server does by itself in its next minute.
    servers.query("VACUUM ANALYZE")
    time.sleep(REST_SECONDS)
    before, began = [sum(node.cpu_seconds() for node in nodes) * 1e3, *servers.asked()], time.monotonic()
    time.sleep(IDLE_SECONDS)
    took = time.monotonic() - began
    after = [sum(node.cpu_seconds() for node in nodes) * 1e3, *servers.asked()]
    figures = [transactions / PURCHASES, calls / PURCHASES, statistics.median(bought)]
    figures += [(last - first) / took / number for first, last in zip(before, after)]
    print(f"{number} nodes, {behind:,} behind:", *(f"{unit} {one:.2f} " for unit, one in zip(UNITS, figures)), flush=True)
    for node in nodes:
        node.stop()
    servers.postgres.stop()
    servers.redis.process.terminate()
    servers.redis.process.wait(peers.STOP_SECONDS)
    shutil.rmtree(folder)
    return figures


def markdown(facts, curve):
    lines = ["# What nodes cost", "", *sale_report.header(facts), ""]
    lines += [f"One sale of {SEGMENTS} segments on one Redis and one PostgreSQL; {PURCHASES} purchases at one node, one after the other, then {IDLE_SECONDS} s at rest."]
    lines += ["A purchase is bought, settled and paid for; its transactions and calls include what all nodes do beside it."]
    lines += ["All nodes on core 0: the purchase is slower with more of them because they share it.", ""]
    lines += ["| nodes | orders behind | " + " | ".join(UNITS) + " |", "|---:" * (len(UNITS) + 2) + "|"]
    for (number, behind), rounds in curve.items():
        medians = (statistics.median(column) for column in zip(*rounds))
        lines += [f"| {number} | {behind:,} | " + " | ".join(f"{one:,.2f}" for one in medians) + " |"]
    return "\n".join([*lines, ""])


def run(chosen, processes, program):
    """All numbers of nodes over both pasts, and the report."""
    curve = {(number, behind): [] for number in chosen.nodes for behind in BEHIND}
    with tempfile.TemporaryDirectory(prefix="penstock-nodes-") as folder:
        pathlib.Path(folder).chmod(0o711)
        for one in range(chosen.rounds):
            for number, behind in curve:
                at = pathlib.Path(folder) / f"{number}-{behind}-{one}"
                curve[number, behind].append(point(number, behind, chosen, processes, at, program))
    facts = peers.facts("benches/peers/growth.py", chosen, {"penstock": peers.first_line([str(chosen.program), "--version"])})
    chosen.report.mkdir(parents=True, exist_ok=True)
    rounds = [{"nodes": number, "behind": behind, "rounds": figures} for (number, behind), figures in curve.items()]
    (chosen.report / "nodes.json").write_text(json.dumps(facts | {"units": UNITS, "points": rounds}, indent=2) + "\n")
    (chosen.report / "nodes.md").write_text(markdown(facts, curve))
    print(markdown(facts, curve))
    return 0
