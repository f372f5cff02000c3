#!/usr/bin/env python3
"""The side-by-side run: CPU time per request of Penstock and its peers, same job, same minute, same machine.

Every proxy is one worker pinned to core 0. The origin (nginx `return 200`) and the load generator (wrk) share core 1.
Rounds are interleaved: in each round every proxy is loaded once in every mode, in an order that rotates, so that a slow
minute of the machine slows all of them. CPU time is utime + stime of the whole process from /proc/<pid>/stat, read before
and after a round and divided by the requests wrk completed in it.

    benches/peers/run.py                          all peers, five rounds
    benches/peers/run.py --only penstock,nginx    a subset; what is left out need not be installed
    benches/peers/run.py --dry-run                start each, send one request, stop

Exit 0: report written. 1: a program failed or refused requests. 2: a program is missing, or a bad argument.
"""

import argparse
import datetime
import pathlib
import re
import sys
import tempfile

import peers
import report

MODES = ["h1", "h1-tls"]

# An answer that takes longer than this has stalled; wrk counts it as a timeout and the run fails.
WRK_TIMEOUT = "10s"


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(peers.PEERS), help="comma-separated peers (default: all)")
    parser.add_argument("--modes", default=",".join(MODES), help="comma-separated modes (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement")
    parser.add_argument("--warm-up", type=int, default=1, metavar="SECONDS", help="unmeasured load before each")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--report", type=pathlib.Path, default=peers.HERE / "report")
    parser.add_argument("--dry-run", action="store_true", help="start, one request per mode, stop; no load")
    chosen = parser.parse_args()
    chosen.only = subset(parser, "--only", chosen.only, list(peers.PEERS))
    chosen.modes = subset(parser, "--modes", chosen.modes, MODES)
    for name, smallest in [("rounds", 1), ("seconds", 1), ("warm_up", 0), ("connections", 1)]:
        if getattr(chosen, name) < smallest:
            parser.error(f"--{name.replace('_', '-')} must be at least {smallest}")
    return chosen


def subset(parser, option, text, allowed):
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        parser.error(f"{option} must name some of {', '.join(allowed)}")
    # In the fixed order, each once.
    return [name for name in allowed if name in names]


def load(url, seconds, connections):
    """Runs wrk once; the number of requests it completed."""
    command = ["taskset", "-c", str(peers.LOAD_CORE), "wrk", "-t", "1", "-c", str(connections)]
    command += ["-d", f"{seconds}s", "--timeout", WRK_TIMEOUT, "-s", str(peers.HERE / "users.lua"), url]
    output = peers.output_of(command, timeout_s=seconds + 30)
    errors = re.search(r"^\s*(Non-2xx|Socket errors).*$", output, re.MULTILINE)
    if errors:
        raise peers.Failed(f"{url}: {errors.group(0).strip()}")
    return int(re.search(r"(\d+) requests in", output).group(1))


def measure(proxy, mode, chosen):
    url = proxy.url(mode)
    if chosen.warm_up:
        load(url, chosen.warm_up, chosen.connections)
    before = proxy.cpu_seconds()
    requests = load(url, chosen.seconds, chosen.connections)
    cpu_us = (proxy.cpu_seconds() - before) * 1e6
    return {
        "cpu_us_per_request": cpu_us / requests,
        "requests_per_second": requests / chosen.seconds,
        "core_share": cpu_us / 1e6 / chosen.seconds,
    }


def run_rounds(running, chosen):
    """{mode: {peer: [one measurement a round]}}"""
    results = {mode: {proxy.name: [] for proxy in running} for mode in chosen.modes}
    for round_number in range(chosen.rounds):
        turn = round_number % len(running)
        for mode in chosen.modes:
            for proxy in running[turn:] + running[:turn]:
                measurement = measure(proxy, mode, chosen)
                results[mode][proxy.name].append(measurement)
                print(
                    f"round {round_number + 1}/{chosen.rounds} {mode:7} {proxy.name:9}"
                    f" {measurement['cpu_us_per_request']:7.2f} us/request"
                    f" {measurement['requests_per_second']:9.0f} requests/s"
                    f" {measurement['core_share']:5.0%} of its core",
                    flush=True,
                )
    return results


def main():
    chosen = arguments()
    missing = peers.missing(chosen.only)
    if missing:
        for line in missing:
            print(f"missing: {line}", file=sys.stderr)
        print("`make peers-install` installs all of it; `--only` leaves peers out", file=sys.stderr)
        return 2
    # Asked first: a version that cannot be read should not cost a whole run.
    versions = peers.versions(chosen.only)
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as folder, peers.Processes() as processes:
        try:
            setting = peers.Setting.prepare(pathlib.Path(folder), processes)
            running = [peers.start(name, setting, processes) for name in chosen.only]
            for proxy in running:
                for mode in chosen.modes:
                    proxy.ask_once(mode)
            if chosen.dry_run:
                print(f"started, asked and stopped: origin, {', '.join(chosen.only)}")
                return 0
            results = run_rounds(running, chosen)
        except peers.Failed as failure:
            print(f"failed: {failure}", file=sys.stderr)
            print(processes.logs(), file=sys.stderr)
            return 1
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["benches/peers/run.py", *sys.argv[1:]]),
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "warm_up_seconds": chosen.warm_up,
        "connections": chosen.connections,
        "machine": peers.machine(),
        "versions": versions,
    }
    path = report.write(chosen.report, facts, results)
    print(path.read_text())
    print(f"written: {path} and {path.with_suffix('.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
