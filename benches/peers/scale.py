#!/usr/bin/env python3
"""The sale's curves: what becomes of the stores as a sale grows.

  batch     Redis CPU time of a reservation, by how many share one call
  segments  CPU time by 1 to 3 primaries of a Redis Cluster and 1 to 8 segments of one hot sku, in all and of the busiest primary.
            Two cores cannot show the throughput of three servers; the busiest one's share of a reservation bounds it.
  orders    latency of a call of 64 purchases and memory, from 10^3 to 10^EXPONENT orders in one sale, on each store

Redis runs on core 1, the calling program (and with it the embedded store) on core 0.

    benches/peers/scale.py                                 all; 10^6 orders, two minutes; writes report/scale.md and scale.json
    benches/peers/scale.py --max-exponent 7                needs 16 GB of memory and some minutes
    benches/peers/scale.py --only segments --rounds 1

Exit 0: report written. 1: a program failed. 2: a program is missing, or a bad argument.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

import peers
import sale_report
import sale_servers

SCALE = peers.TARGET / "dist/scale"
CURVES = ("batch", "segments", "orders")
BATCHES = (1, 4, 16, 64, 256)
PRIMARIES = (1, 2, 3)
SEGMENTS = (1, 2, 4, 8)
SLOTS = 16_384
# The batch from which on a point has all its purchases.
FULL_AT = 16
STORES = {"redis": "Redis, `fast`", "embedded-fast": "embedded, `fast`", "embedded": "embedded, `durable`"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CURVES), help="comma-separated curves (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of batch and segments")
    parser.add_argument("--purchases", type=int, default=100_000, help="purchases of one point of batch and segments")
    parser.add_argument("--max-exponent", type=int, default=6, help="orders of the curve's last point, as a power of ten (3 to 8)")
    parser.add_argument("--report", type=pathlib.Path, default=peers.HERE / "report")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.purchases < 1 or not 3 <= chosen.max_exponent <= 8:
        parser.error("--rounds and --purchases must be at least 1, --max-exponent 3 to 8")
    chosen.only = [name.strip() for name in chosen.only.split(",")]
    if not set(chosen.only) <= set(CURVES):
        parser.error(f"--only must name some of {', '.join(CURVES)}")
    return chosen


def call(*words, timeout_s=1800):
    """What the program says, a dictionary a line."""
    command = ["taskset", "-c", str(sale_servers.FRONT_CORE), str(SCALE), *map(str, words)]
    return [json.loads(line) for line in peers.output_of(command, timeout_s=timeout_s).splitlines()]


def start_cluster(size, processes, folder):
    """So many primaries that share the slots evenly, and its address."""
    nodes = [sale_servers.Redis(f"node-{size}-{place}", processes, folder, cluster=True) for place in range(size)]
    for place, node in enumerate(nodes):
        node.cli("cluster", "addslotsrange", SLOTS * place // size, SLOTS * (place + 1) // size - 1)
        node.cli("cluster", "set-config-epoch", place + 1)
        if place:
            nodes[0].cli("cluster", "meet", "127.0.0.1", node.port, node.bus)
    deadline = time.monotonic() + peers.START_SECONDS
    is_formed = lambda info: "cluster_state:ok" in info and f"cluster_known_nodes:{size}" in info and f"cluster_size:{size}" in info
    while not all(is_formed(node.cli("cluster", "info")) for node in nodes):
        if time.monotonic() > deadline:
            raise peers.Failed(f"the cluster of {size} did not form")
        time.sleep(0.05)
    return nodes, "redis-cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def point(nodes, url, sale, segments, batch, chosen):
    """One measurement: CPU time per reservation, in all and of the busiest server, and how many servers took part."""
    for node in nodes:
        node.cli("flushall")
    before = [node.cpu_seconds() for node in nodes]
    # Small batches take long, and their CPU time is plain with fewer of them.
    purchases = max(1, chosen.purchases * min(batch, FULL_AT) // FULL_AT)
    words = ("--store", url, "--sale", sale, "--segments", segments, "--purchases", purchases, "--batch", batch)
    measured = call("segments", *words)[0]
    costs = [(node.cpu_seconds() - early) * 1e6 / measured["purchases"] for node, early in zip(nodes, before)]
    return {
        "cpu_us": sum(costs), "busiest_us": max(costs), "per_second": measured["purchases"] / measured["seconds"],
        # A server without a segment still answers the client's questions about the cluster.
        "taking_part": sum(cost > 0.1 * max(costs) for cost in costs),
    }


def batch_curve(chosen, processes, folder):
    redis = sale_servers.Redis("redis", processes, folder)
    points = {str(batch): [] for batch in BATCHES}
    for number in range(chosen.rounds):
        for batch in BATCHES:
            points[str(batch)].append(point([redis], redis.url(), f"b{number}-{batch}", 1, batch, chosen))
            print(f"round {number + 1}/{chosen.rounds}  batch {batch:4} ", points[str(batch)][-1], flush=True)
    return points


def segments_curve(chosen, processes, folder):
    clusters = {size: start_cluster(size, processes, folder) for size in PRIMARIES}
    points = {f"{size}/{segments}": [] for size in PRIMARIES for segments in SEGMENTS}
    for number in range(chosen.rounds):
        for size, (nodes, url) in clusters.items():
            for segments in SEGMENTS:
                # The same name in every round: the slots of the segments decide who is busiest.
                measured = point(nodes, url, "hot", segments, 64, chosen)
                points[f"{size}/{segments}"].append(measured)
                print(f"round {number + 1}/{chosen.rounds}  primaries {size} segments {segments} ", measured, flush=True)
    return points


def orders_curve(chosen, processes, folder):
    points = {}
    for kind in STORES:
        words, place = [], f"{kind}:{folder / kind}"
        if kind == "redis":
            redis = sale_servers.Redis("redis-orders", processes, folder)
            words, place = ["--memory-of", redis.process.pid], redis.url()
        points[kind] = call("orders", "--store", place, *words, "--max-exponent", chosen.max_exponent)
        if kind == "redis":
            # Its memory is wanted by the next store.
            redis.cli("flushall")
        for line in points[kind]:
            print(kind, line, flush=True)
    return points


def median_of(points, unit):
    figures = [one[unit] for one in points]
    return statistics.median(figures), min(figures), max(figures)


def markdown(facts, curves):
    lines = ["# The sale's curves", "", *sale_report.header(facts), "", "Redis on core 1, the caller (and the embedded store in it) on core 0."]
    lines += ["One call at a time for each segment. Medians of the rounds; CPU time from `/proc/<pid>/stat`.", ""]
    if "batch" in curves:
        lines += ["## Redis CPU per reservation, by purchases in one call", ""]
        lines += ["| purchases a call | CPU µs, median | min–max | reservations/s, one caller |", "|---:|---:|---:|---:|"]
        for batch, points in curves["batch"].items():
            median, low, high = median_of(points, "cpu_us")
            lines.append(f"| {batch} | {median:.1f} | {low:.1f}–{high:.1f} | {median_of(points, 'per_second')[0]:,.0f} |")
        lines.append("")
    if "segments" in curves:
        lines += ["## One hot sku: primaries and segments", ""]
        lines += ["| primaries | segments | taking part | CPU µs per reservation, all | min–max | of the busiest | min–max |"]
        lines += ["|---:|---:|---:|---:|---:|---:|---:|"]
        for name, points in curves["segments"].items():
            (cost, low, high), (busiest, least, most) = median_of(points, "cpu_us"), median_of(points, "busiest_us")
            lines.append(
                f"| {name.replace('/', ' | ')} | {median_of(points, 'taking_part')[0]:.0f} | {cost:.1f} | {low:.1f}–{high:.1f}"
                f" | {busiest:.1f} | {least:.1f}–{most:.1f} |"
            )
        lines.append("")
    if "orders" in curves:
        lines += ["## Orders in one sale: a call of 64 purchases, one after the other", ""]
        lines += ["Each line is the stretch from the line before it; memory is resident memory beyond that of the empty store.", ""]
        lines += ["| store | orders | p50 µs | p99 µs | longest µs | memory | per million orders |", "|---|---:|---:|---:|---:|---:|---:|"]
        for kind, points in curves["orders"].items():
            for one in points:
                mib = one["memory_bytes"] / 2**20
                each = f"{mib * 1e6 / one['orders']:,.0f} MiB" if one["orders"] >= 100_000 else ""
                lines.append(
                    f"| {STORES[kind]} | {one['orders']:,} | {one['p50_us']:,.0f} | {one['p99_us']:,.0f} | {one['max_us']:,.0f}"
                    f" | {mib:,.0f} MiB | {each} |"
                )
        lines.append("")
    return "\n".join(lines)


def main():
    chosen = arguments()
    missing = sale_servers.missing()
    if not SCALE.exists():
        missing.append(f"{SCALE}: cargo build --profile dist -p benches --bins")
    if missing:
        print("\n".join(f"missing: {line}" for line in missing), file=sys.stderr)
        return 2
    curves = {}
    with tempfile.TemporaryDirectory(prefix="penstock-scale-") as folder, peers.Processes() as processes:
        try:
            runs = {"batch": batch_curve, "segments": segments_curve, "orders": orders_curve}
            for name in CURVES:
                if name in chosen.only:
                    curves[name] = runs[name](chosen, processes, pathlib.Path(folder))
        except peers.Failed as failure:
            print(f"failed: {failure}\n{processes.logs()}", file=sys.stderr)
            return 1
    versions = {"redis": peers.first_line([peers.find("redis-server"), "--version"]).removeprefix("Redis server ")}
    facts = peers.facts("benches/peers/scale.py", chosen, versions)
    chosen.report.mkdir(parents=True, exist_ok=True)
    (chosen.report / "scale.json").write_text(json.dumps(facts | {"curves": curves}, indent=2) + "\n")
    text = markdown(facts, curves)
    (chosen.report / "scale.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
