#!/usr/bin/env python3
"""The sale's own figures: CPU time of a sold-out answer beside nginx `return 200`, and accepted purchases per second.

Penstock (one worker, embedded store, durable) and nginx run on core 0, wrk on core 1; rounds are interleaved, medians shown.
A sold-out answer is a whole purchase request, refused from memory. An accepted one is on disk before it is answered; its CPU
time includes journal and settlement into SQLite, which go on beside it on the same core.

    benches/peers/sale.py                 five rounds of five seconds; writes report/sale.md and report/sale.json
    benches/peers/sale.py --rounds 3 --seconds 2 --report /tmp/report

Exit 0: report written. 1: a program failed. 2: a program is missing.
"""

import argparse
import datetime
import http.client
import json
import pathlib
import re
import statistics
import sys
import tempfile
import time

import peers


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--report", type=pathlib.Path, default=peers.HERE / "report")
    return parser.parse_args()


def create_sale(admin, name, stock):
    now = int(time.time() * 1000)
    sale = {
        "id": name, "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "1h", "buyer_limit": 1,
        "currency": "usd", "skus": [{"sku": "shoe", "stock": stock, "price_minor": 100}],
    }
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    connection.request("POST", "/admin/v1/sales", json.dumps(sale))
    answer = connection.getresponse()
    if answer.status != 201:
        raise peers.Failed(f"sale {name}: {answer.status} {answer.read()[:200]!r}")
    connection.close()


def load(url, mode, round_name, chosen):
    """Requests that were answered, and those of them that were not 2xx."""
    command = ["taskset", "-c", str(peers.LOAD_CORE), "wrk", "-t", "1", "-c", str(chosen.connections)]
    command += ["-d", f"{chosen.seconds}s", "--timeout", "10s", "-s", str(peers.HERE / "sale.lua"), url, "--", mode, round_name]
    output = peers.output_of(command, timeout_s=chosen.seconds + 30)
    if "Socket errors" in output:
        raise peers.Failed(f"{mode}: {output}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return int(re.search(r"(\d+) requests in", output).group(1)), int(refused.group(1)) if refused else 0


def measure(server, url, mode, round_name, chosen):
    before = server.cpu_seconds()
    requests, refused = load(url, mode, round_name, chosen)
    cpu_us = (server.cpu_seconds() - before) * 1e6 / requests
    expected = {"cached": 0, "sold": requests}.get(mode)
    if expected is not None and refused != expected:
        raise peers.Failed(f"{mode}: {refused} of {requests} refused, expected {expected}")
    return {"cpu_us_per_request": cpu_us, "requests_per_second": requests / chosen.seconds, "refused": refused}


def main():
    chosen = arguments()
    missing = peers.missing(["penstock", "nginx"])
    if missing:
        print("\n".join(f"missing: {line}" for line in missing), file=sys.stderr)
        return 2
    results = {"sold": [], "cached": [], "buy": []}
    with tempfile.TemporaryDirectory(prefix="penstock-sale-") as folder, peers.Processes() as processes:
        folder = pathlib.Path(folder)
        try:
            plain, admin, origin, spare = peers.free_ports(4)
            values = {"PLAIN": plain, "ADMIN": admin, "ORIGIN_A": origin, "ORIGIN_B": spare, "DIR": folder}
            for name in ("sale.toml", "origin.conf"):
                text = (peers.CONFIGS / f"{name}.tmpl").read_text()
                (folder / name).write_text(peers.fill(text, values))
            binary = [str(peers.PENSTOCK), "serve", "--config", str(folder / "sale.toml")]
            penstock = processes.start("penstock", binary, peers.PROXY_CORE, folder)
            nginx = processes.start("nginx", [peers.find("nginx"), "-c", str(folder / "origin.conf")], peers.PROXY_CORE, folder)
            for process, port in ((penstock, plain), (penstock, admin), (nginx, origin)):
                peers.wait_for_port("server", process, port)
            ours = peers.Running("penstock", penstock, plain, plain)
            theirs = peers.Running("nginx", nginx, origin, origin)
            create_sale(admin, "sold", 0)
            create_sale(admin, "buy", 1_000_000_000)
            for number in range(chosen.rounds):
                for mode, server, port in (("sold", ours, plain), ("cached", theirs, origin), ("buy", ours, plain)):
                    measurement = measure(server, f"http://localhost:{port}/", mode, str(number), chosen)
                    results[mode].append(measurement)
                    print(f"round {number + 1}/{chosen.rounds} {mode:7}", measurement, flush=True)
                # What was accepted is settled before the next round, so that it does not pay for it.
                time.sleep(chosen.seconds)
        except peers.Failed as failure:
            print(f"failed: {failure}\n{processes.logs()}", file=sys.stderr)
            return 1
    write(chosen, results)
    return 0


def write(chosen, results):
    machine = peers.machine()
    ratios = [a["cpu_us_per_request"] / b["cpu_us_per_request"] for a, b in zip(results["sold"], results["cached"])]
    names = {"sold": "penstock, sold out", "cached": "nginx `return 200`", "buy": "penstock, accepted, durable"}
    lines = [
        "# The sale: CPU time per answer",
        "",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
        f"- date: {datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')}",
        f"- command: `{' '.join(['benches/peers/sale.py', *sys.argv[1:]])}`",
        "",
        "| answer | CPU µs, median | min–max | answers/s, median |",
        "|---|---:|---:|---:|",
    ]
    for mode, rounds in results.items():
        cost = [one["cpu_us_per_request"] for one in rounds]
        rate = statistics.median(one["requests_per_second"] for one in rounds)
        lines.append(f"| {names[mode]} | {statistics.median(cost):.1f} | {min(cost):.1f}–{max(cost):.1f} | {rate:.0f} |")
    lines += ["", f"sold out ÷ nginx, median of the rounds: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})", ""]
    chosen.report.mkdir(parents=True, exist_ok=True)
    (chosen.report / "sale.md").write_text("\n".join(lines))
    (chosen.report / "sale.json").write_text(json.dumps({"machine": machine, "measurements": results}, indent=2) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
