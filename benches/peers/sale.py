#!/usr/bin/env python3
"""The sale's own figures, each beside its baseline in the same run: rounds are interleaved, medians and spread are shown.

  sold-out         CPU time of a refused purchase            beside nginx `return 200`
  redis-cpu        Redis CPU time of a reservation           beside a single EVALSHA of the same work (single.lua, redis-benchmark)
  redis-rate       accepted purchases/s, Redis store         beside what redis-benchmark reaches with that EVALSHA
  embedded-rate    accepted purchases/s, on disk first       beside the Redis figure above
  settlement-rate  orders/s into PostgreSQL                  beside a bare batched INSERT … UNNEST of the same rows

Redis, PostgreSQL and the load generator wrk have core 1; core 0 has nginx, redis-benchmark, the inserting client, and the gateway's
sold-out answers. A gateway whose accepted purchases are counted may use both, as the baseline does with its client on one and Redis on
the other. Where Redis CPU time is compared, Redis has core 1 to itself, as in the baseline; gateway and wrk share core 0. Every measurement of the gateway has a process, a store and a ledger of its own.

    benches/peers/sale.py                              seven rounds, about four minutes; writes report/sale.md and sale.json
    benches/peers/sale.py --only settlement-rate       some of the figures
    benches/peers/sale.py --rounds 1 --seconds 1 --report /tmp/report

Exit 0: report written, whether or not the bars are reached. 1: a program failed. 2: a program is missing, or a bad argument.
"""

import argparse
import csv
import json
import pathlib
import re
import statistics
import sys
import tempfile

import peers
import sale_report
import sale_servers

SETTLEMENT = peers.TARGET / "dist/settlement"
STOCK = 1_000_000_000
# What the baseline's calls name: the five keys of one sale, and ids as long as Penstock's.
KEYS = [f"single:{{sale:shoe:0}}:{part}" for part in ("meta", "buyers", "requests", "orders", "stream")]
ARGUMENTS = ["1", "ord_0__rand_int____rand_int__", "b-__rand_int__", "k-__rand_int__", "8f3a1b2c4d5e6f70", "1"]
# redis-benchmark draws its ids at random; a pair that meets is answered without buying.
MOST_REPEATED = 0.001
# redis-benchmark's default; more connections make the single call slower here, not faster.
SINGLE_CONNECTIONS = 50
WARM_UP_SECONDS = 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement")
    parser.add_argument("--connections", type=int, default=256, help="buyers at a time")
    parser.add_argument("--orders", type=int, default=50_000, help="orders of one settlement")
    parser.add_argument("--only", default=",".join(sale_report.FIGURES), help="comma-separated figures (default: all)")
    parser.add_argument("--report", type=pathlib.Path, default=peers.HERE / "report")
    chosen = parser.parse_args()
    for name in ("rounds", "seconds", "connections", "orders"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    wanted = [name.strip() for name in chosen.only.split(",")]
    unknown = [name for name in wanted if name not in sale_report.FIGURES]
    if unknown:
        parser.error(f"--only must name some of {', '.join(sale_report.FIGURES)}")
    chosen.only = [name for name in sale_report.FIGURES if name in wanted]
    return chosen


def load(url, mode, round_name, seconds, connections, core=sale_servers.BACK_CORE):
    """Requests that were answered, and those of them that were not 2xx."""
    command = ["taskset", "-c", str(core), "wrk", "-t", "1", "-c", str(connections)]
    command += ["-d", f"{seconds}s", "--timeout", "10s", "-s", str(peers.HERE / "sale.lua"), url, "--", mode, round_name]
    output = peers.output_of(command, timeout_s=seconds + 30)
    if "Socket errors" in output:
        raise peers.Failed(f"{mode}: {output}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return int(re.search(r"(\d+) requests in", output).group(1)), int(refused.group(1)) if refused else 0


class Bench:
    """The servers of a run and its measurements, each answering {name: figure}."""

    def __init__(self, chosen, folder, processes):
        self.chosen, self.folder, self.processes = chosen, folder, processes
        self.number = 0
        self.redis = self.sha = self.postgres = self.nginx = None
        measured = sale_report.measurements(chosen.only)
        if {"single", "redis-all", "redis-edge"} & measured:
            self.redis = sale_servers.Redis("redis", processes, folder)
            self.sha = self.redis.load_script(peers.HERE / "single.lua")
        if {"settle", "insert-indexed"} & measured:
            self.postgres = sale_servers.Postgres(processes, folder)
        if "nginx" in measured:
            port, spare = peers.free_ports(2)
            text = (peers.CONFIGS / "origin.conf.tmpl").read_text()
            (folder / "origin.conf").write_text(peers.fill(text, {"ORIGIN_A": port, "ORIGIN_B": spare, "DIR": folder}))
            command = [peers.find("nginx"), "-c", str(folder / "origin.conf")]
            process = processes.start("nginx", command, sale_servers.FRONT_CORE, folder)
            peers.wait_for_port("nginx", process, port)
            self.nginx = peers.Running("nginx", process, port, port)

    def gateway(self, store, **options):
        self.number += 1
        return sale_servers.Gateway(f"gateway-{self.number}", store, self.processes, self.folder, **options)

    def measure(self, name):
        match name:
            case "sold-out":
                gateway = self.gateway("embedded:@DIR@/journal", durability="durable")
                gateway.create_sale("sold", 0)
                measured = self.answers("sold", gateway)
                gateway.stop()
                return measured
            case "nginx":
                return self.answers("cached", self.nginx)
            case "single":
                return self.single()
            case "redis-all":
                return self.accepted(self.redis.url(), role="all")
            case "redis-edge":
                return self.accepted(self.redis.url(), role="edge", apart=True)
            case "embedded":
                return self.accepted("embedded:@DIR@/journal", durability="durable")
            case "settle" | "settle-outbox" | "insert-indexed" | "insert-keyed":
                return self.settlement(name)

    def answers(self, mode, server):
        """Answers that touch no store: all refused, or none."""
        url = server.url("h1") if isinstance(server, peers.Running) else server.url()
        load(url, mode, "w", WARM_UP_SECONDS, self.chosen.connections)
        before = server.cpu_seconds()
        requests, refused = load(url, mode, "m", self.chosen.seconds, self.chosen.connections)
        if refused != {"cached": 0, "sold": requests}[mode]:
            raise peers.Failed(f"{mode}: {refused} of {requests} refused")
        cpu_us = (server.cpu_seconds() - before) * 1e6 / requests
        return {"cpu_us": cpu_us, "per_second": requests / self.chosen.seconds}

    def single(self):
        """One purchase a call, as fast as redis-benchmark can."""
        self.redis.cli("flushall")
        fields = {
            "epoch": 1, "gate": "O", "starts": 0, "ends": 1 << 47, "limit": 1, "pay_within": 900_000, "available": STOCK,
            "reserved": 0, "accepted": 0, "version": 1,
        }
        self.redis.cli("hset", KEYS[0], *(word for pair in fields.items() for word in pair))
        # The first calls warm up, and tell how many fill the time.
        calls = int(self.call_single(20_000) * self.chosen.seconds)
        bought, cpu = int(self.redis.cli("xlen", KEYS[4])), self.redis.cpu_seconds()
        rate = self.call_single(calls)
        cpu = self.redis.cpu_seconds() - cpu
        bought = int(self.redis.cli("xlen", KEYS[4])) - bought
        if bought < calls * (1 - MOST_REPEATED):
            raise peers.Failed(f"single.lua: only {bought} of {calls} calls bought")
        return {"redis_cpu_us": cpu * 1e6 / bought, "per_second": rate * bought / calls}

    def call_single(self, calls):
        command = ["taskset", "-c", str(sale_servers.FRONT_CORE), peers.find("redis-benchmark"), "-p", str(self.redis.port)]
        command += ["-c", str(SINGLE_CONNECTIONS), "-n", str(calls), "-r", "2000000000", "--csv"]
        output = peers.output_of([*command, "evalsha", self.sha, str(len(KEYS)), *KEYS, *ARGUMENTS])
        return float(list(csv.DictReader(output.splitlines()))[0]["rps"])

    def accepted(self, store, apart=False, **options):
        """Purchases through the whole gateway; with the role `all`, the CPU time until the last one is in the ledger. Redis has
        its core to itself if it is to be `apart`, as in the baseline; else the gateway may use both and wrk sits beside Redis.
        """
        if self.redis:
            self.redis.cli("flushall")
        settles = options.get("role", "all") == "all"
        cores = (sale_servers.FRONT_CORE, sale_servers.FRONT_CORE) if apart else (sale_servers.BOTH_CORES, sale_servers.BACK_CORE)
        gateway = self.gateway(store, core=cores[0], **options)
        gateway.create_sale("buy", STOCK)
        load(gateway.url(), "buy", "w", WARM_UP_SECONDS, self.chosen.connections, cores[1])
        if settles:
            gateway.wait_until_settled("buy")
        def readings():
            return gateway.cpu_seconds(), self.redis.cpu_seconds() if "redis" in store else 0.0
        bought, before = gateway.ask("GET", "/admin/v1/sales/buy/report", 200)["accepted"], readings()
        _, refused = load(gateway.url(), "buy", "m", self.chosen.seconds, self.chosen.connections, cores[1])
        if settles:
            gateway.wait_until_settled("buy")
        after = readings()
        bought = gateway.ask("GET", "/admin/v1/sales/buy/report", 200)["accepted"] - bought
        gateway.stop()
        if refused or not bought:
            raise peers.Failed(f"{store}: {refused} refused, {bought} bought")
        cpu_us, redis_cpu_us = ((late - early) * 1e6 / bought for late, early in zip(after, before))
        measured = {"cpu_us": cpu_us, "per_second": bought / self.chosen.seconds}
        return measured | ({"redis_cpu_us": redis_cpu_us} if "redis" in store else {})

    def settlement(self, mode):
        command = ["taskset", "-c", str(sale_servers.FRONT_CORE), str(SETTLEMENT), mode]
        before = self.postgres.cpu_seconds()
        output = peers.output_of([*command, "--url", self.postgres.url(), "--orders", str(self.chosen.orders)], timeout_s=300)
        cpu_us = (self.postgres.cpu_seconds() - before) * 1e6 / self.chosen.orders
        measured = json.loads(output.splitlines()[-1])
        return {"postgres_cpu_us": cpu_us, "per_second": measured["orders"] / measured["seconds"]}


def versions():
    lines = {
        "penstock": peers.first_line([str(peers.PENSTOCK), "--version"]),
        "redis": peers.first_line([peers.find("redis-server"), "--version"]),
        "postgresql": peers.first_line([str(sale_servers.postgres_folder() / "postgres"), "--version"]),
        "nginx": peers.first_line([peers.find("nginx"), "-v"]),
        "wrk": peers.first_line(["wrk", "-v"]),
    }
    return {name: line.removeprefix("Redis server ") for name, line in lines.items()}


def main():
    chosen = arguments()
    missing = peers.missing(["penstock", "nginx"]) + sale_servers.missing()
    if not SETTLEMENT.exists():
        missing.append(f"{SETTLEMENT}: cargo build --profile dist -p benches --bins")
    if missing:
        print("\n".join(f"missing: {line}" for line in missing), file=sys.stderr)
        return 2
    names = [name for name in sale_report.MEASUREMENTS if name in sale_report.measurements(chosen.only)]
    results = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="penstock-sale-") as folder, peers.Processes() as processes:
        try:
            bench = Bench(chosen, pathlib.Path(folder), processes)
            for number in range(chosen.rounds):
                # The order turns, so that none always follows the same other.
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:
                    measured = bench.measure(name)
                    results[name].append(measured)
                    shown = "  ".join(f"{unit} {figure:,.1f}" for unit, figure in measured.items())
                    print(f"round {number + 1}/{chosen.rounds}  {name:15} {shown}", flush=True)
        except peers.Failed as failure:
            print(f"failed: {failure}\n{processes.logs()}", file=sys.stderr)
            return 1
    facts = peers.facts("benches/peers/sale.py", chosen, versions())
    path = sale_report.write(chosen.report, facts, chosen.only, results)
    print(path.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
