"""What nodes cost: the same sale on one Redis and one PostgreSQL with more and more nodes, each a process, and what each does at rest."""

import argparse
import json
import pathlib
import shutil
import statistics
import tempfile
import time

import peers
import sale_report
import sale_servers

PURCHASES, STOCK, SEGMENTS = 200, 10_000, 16
# Until every segment is at rest on every node, and how long that is looked at.
REST_SECONDS, IDLE_SECONDS = 15, 30
UNITS = ("idle CPU ms/s a node", "store calls/s a node", "transactions/s a node", "purchase p50 ms")
TRANSACTIONS = "SELECT SUM(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'postgres'"


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

    def transactions(self):
        return int(self.query(TRANSACTIONS))


def point(number, chosen, processes, folder, program):
    """The figures of one number of nodes."""
    folder.mkdir()
    servers = Servers(processes, folder)
    stores = {"STORE": servers.redis.url(), "LEDGER": servers.postgres.url(), "DURABILITY": "fast"}
    nodes = []
    for at in range(number):
        home = folder / f"node-{at}"
        home.mkdir()
        if nodes:
            # One key for all, as in a cluster.
            shutil.copy(folder / "node-0/payment.key", home / "payment.key")
        nodes.append(program(chosen.program, home, processes, stores, f"penstock-{number}-{at}"))
    bought, _ = nodes[0].sell("sale", PURCHASES, STOCK, SEGMENTS)
    time.sleep(REST_SECONDS)
    before, began = (servers.store_calls(), servers.transactions(), [node.cpu_seconds() for node in nodes]), time.monotonic()
    time.sleep(IDLE_SECONDS)
    took = time.monotonic() - began
    cpu = sum(node.cpu_seconds() - first for node, first in zip(nodes, before[2]))
    each = [cpu * 1e3, servers.store_calls() - before[0], servers.transactions() - before[1]]
    figures = [one / took / number for one in each] + [statistics.median(bought)]
    print(f"{number} nodes:", *(f"{unit} {one:.2f} " for unit, one in zip(UNITS, figures)), flush=True)
    for node in nodes:
        node.stop()
    servers.postgres.stop()
    servers.redis.process.terminate()
    servers.redis.process.wait(peers.STOP_SECONDS)
    return figures


def markdown(facts, curve):
    medians = {number: [statistics.median(column) for column in zip(*rounds)] for number, rounds in curve.items()}
    lines = ["# What nodes cost", "", *sale_report.header(facts), ""]
    lines += [f"One sale of {SEGMENTS} segments on one Redis and one PostgreSQL; {PURCHASES} purchases at one node, one after the other, then {IDLE_SECONDS} s at rest."]
    lines += ["All nodes on core 0: the purchase is slower with more of them because they share it.", ""]
    lines += ["| nodes | " + " | ".join(UNITS) + " |", "|---:" * (len(UNITS) + 1) + "|"]
    lines += [f"| {number} | " + " | ".join(f"{one:,.2f}" for one in row) + " |" for number, row in medians.items()]
    return "\n".join([*lines, ""])


def run(chosen, processes, program):
    """All numbers of nodes, and the report."""
    curve = {}
    with tempfile.TemporaryDirectory(prefix="penstock-nodes-") as folder:
        pathlib.Path(folder).chmod(0o711)
        for number in chosen.nodes:
            rounds = range(chosen.rounds)
            curve[number] = [point(number, chosen, processes, pathlib.Path(folder) / f"{number}-{one}", program) for one in rounds]
    facts = peers.facts("benches/peers/growth.py", chosen, {"penstock": peers.first_line([str(chosen.program), "--version"])})
    chosen.report.mkdir(parents=True, exist_ok=True)
    (chosen.report / "nodes.json").write_text(json.dumps(facts | {"units": UNITS, "rounds": curve}, indent=2) + "\n")
    (chosen.report / "nodes.md").write_text(markdown(facts, curve))
    print(markdown(facts, curve))
    return 0
