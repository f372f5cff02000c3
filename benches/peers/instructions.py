#!/usr/bin/env python3
"""What a request costs in instructions, allocations and system calls: figures that do not depend on how busy the machine is.

The program runs under valgrind's callgrind with one worker. One client sends one thing after the other; a sample is what is counted from
before the first of some hundreds of requests until all that they cause is done. What the idle program does in the same time is
taken off, and the median of the samples is the figure. The kernel's own instructions are not counted; system calls are.

    benches/peers/instructions.py                             all cases, compared with the budget, instructions.json
    benches/peers/instructions.py --write-budget              what is measured is the budget from now on
    benches/peers/instructions.py --only h1,h2-tls --functions 20
    benches/peers/instructions.py --only h2-tls --copies      who copies how many bytes for a request
    benches/peers/instructions.py --binary PATH --label OLD   another build's figures: printed, not compared; --json FILE keeps them

The budget is of target/release/penstock. Above it by more than the slack: exit 1, with the functions that grew. Below it: a line says so.
The counts depend on compiler, valgrind and libc; with others than the budget's the comparison is printed but fails nothing.

Exit 0: within the budget. 1: above it, or the program failed. 2: a program is missing, or a bad argument.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import callgrind
import instruction_budget
import instruction_cases
import peers
import sale_servers

RELEASE = peers.TARGET / "release/penstock"
TOOLS = {
    "valgrind": "Debian package valgrind",
    "cc": "Debian package gcc",
    "strip": "Debian package binutils",
    "readelf": "Debian package binutils",
    "nginx": "Debian package nginx-light (the origin)",
    "openssl": "Debian package openssl",
    "redis-server": "Debian package redis-server",
}
IDLE_SECONDS = 0.5
# Under valgrind, on a machine that does other work too.
START_SECONDS = 120
WORTH_TELLING_BYTES = 1000


@dataclasses.dataclass
class Setting:
    """What all cases share."""

    folder: pathlib.Path
    processes: peers.Processes
    values: dict
    cores: str
    redis_server: sale_servers.Redis = None

    def redis(self):
        self.redis_server = self.redis_server or sale_servers.Redis("redis", self.processes, self.folder, self.cores)
        return self.redis_server


def per_request(threads, path, requests, idle, seconds):
    """A sample's figures without what the idle program does in as many seconds: of the threads on the request's path, and of the others."""

    def without_idle(many, few):
        return max(0, many - few * seconds / IDLE_SECONDS) / requests

    def each_without_idle(name):
        many, few = getattr(counts, name), getattr(resting, name)
        return {key: without_idle(many[key], few[key]) for key in many}

    none = callgrind.Counts()
    counts, resting = (sum((of[name] for name in path if name in of), none) for of in (threads, idle))
    behind, behind_idle = (sum((one for name, one in of.items() if name not in path), none) for of in (threads, idle))
    calls, functions, copies = (each_without_idle(name) for name in ("system_calls", "functions", "copies"))
    figures = {name: without_idle(getattr(counts, name), getattr(resting, name)) for name in ("instructions", "allocations", "clock_reads")}
    figures["behind"] = without_idle(behind.instructions, behind_idle.instructions)
    return figures | {"system_calls": sum(calls.values()), "calls": calls, "functions": functions, "copies": copies}


def median_of(samples):
    """The medians, and by what part of it each of them is apart."""
    middle = sorted(samples, key=lambda sample: sample["instructions"])[len(samples) // 2]
    figures = {"calls": middle["calls"], "functions": middle["functions"], "copies": middle["copies"], "spread": {}, "samples": {}}
    for metric in (*instruction_budget.METRICS, "behind"):
        taken = [sample[metric] for sample in samples]
        figures[metric] = statistics.median(taken)
        figures["samples"][metric] = taken
        figures["spread"][metric] = (max(taken) - min(taken)) / figures[metric] if figures[metric] else 0.0
    return figures


def measure(name, setting, under, chosen, again=""):
    began, kind = time.monotonic(), instruction_cases.CASES[name]
    count = chosen.samples or kind.SAMPLES
    case = kind(setting, name + again, under.command(name + again), under.environment(), kind.WARM_UP + kind.REQUESTS * count)
    marks = callgrind.Marks(under, name + again, case.program.process)
    case.ask(kind.WARM_UP)
    marks.next()
    taken, rests = [], []
    for _ in range(count):
        start = time.monotonic()
        case.ask(kind.REQUESTS)
        seconds = time.monotonic() - start
        taken.append((marks.next(), seconds))
    for _ in range(kind.RESTS):
        time.sleep(IDLE_SECONDS)
        rests.append(marks.next())
    case.program.stop()
    # In one of them a timer of many seconds may have come due.
    idle = sorted(rests, key=lambda rest: sum(counts.instructions for counts in rest.values()))[len(rests) // 2]
    one = median_of([per_request(threads, kind.PATH, kind.REQUESTS, idle, seconds) for threads, seconds in taken])
    samples = ", ".join(f"{sample:,.0f}" for sample in one["samples"]["instructions"])
    print(f"{name}: {samples} instructions; {time.monotonic() - began:.0f} s", flush=True)
    return one


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ",".join(instruction_cases.CASES)
    parser.add_argument("--only", default=cases, help=f"comma-separated cases (default: {cases})")
    parser.add_argument("--samples", type=int, help="of each case (default: three, five of those that spread)")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="print the N heaviest functions of each case")
    parser.add_argument("--copies", action="store_true", help="count the bytes of large copies (2 KiB and more) instead, and print who makes them")
    parser.add_argument("--binary", type=lambda path: pathlib.Path(path).resolve(), default=RELEASE)
    parser.add_argument("--label", help="what the figures are of; they are not compared with the budget")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--write-budget", action="store_true", help="what is measured is the budget from now on")
    chosen = parser.parse_args()
    wanted = [name.strip() for name in chosen.only.split(",")]
    unknown = [name for name in wanted if name not in instruction_cases.CASES]
    if unknown or (chosen.samples or 1) < 1 or ((chosen.label or chosen.copies) and chosen.write_budget):
        parser.error(f"--only must name some of {cases}; --samples at least 1; --label and --copies go without --write-budget")
    if chosen.copies:
        chosen.label = chosen.label or "bytes that are copied count as instructions"
    chosen.only = [name for name in instruction_cases.CASES if name in wanted]
    return chosen


def missing(chosen):
    lines = [f"{binary}: {how}" for binary, how in TOOLS.items() if not peers.find(binary)]
    return lines if chosen.binary.exists() else [*lines, f"{chosen.binary}: cargo build --release"]


def show(chosen, measured, budget):
    print("\n" + instruction_budget.table(measured, {"cases": {}} if chosen.label else budget))
    print("\nsystem calls of a request\n" + instruction_budget.calls_table(measured) + "\n")
    for name, one in measured.items():
        for function, count in instruction_budget.heaviest(one, chosen.functions).items():
            print(f"{name} {count:8,}  {function}")
        if chosen.copies:
            copies = sorted(one["copies"].items(), key=lambda item: -item[1])
            print(f"{name}: {sum(one['copies'].values()):,.0f} bytes copied")
            print("\n".join(f"{name} {count:8,.0f}  by {function}" for function, count in copies if count >= WORTH_TELLING_BYTES))


def judge(built, measured, budget):
    """Says what is over the budget and what far under it; the exit code."""
    over, under = instruction_budget.compare(budget, measured, instruction_cases.slack)
    if under:
        print("\n".join(["under the budget; --write-budget tightens it", *under]))
    if not over:
        print("within the budget")
        return 0
    print("\n".join(["over the budget", *over]))
    other = [f"{name} was {budget['build'].get(name)}, is {now}" for name, now in built.items() if budget["build"].get(name) != now]
    if other:
        print("not comparable, so nothing fails: " + "; ".join(other))
        return 0
    print("if it must cost that much: benches/peers/instructions.py --write-budget, and the reason in the commit")
    return 1


def main():
    chosen = arguments()
    if lines := missing(chosen):
        print("\n".join(f"missing: {line}" for line in lines), file=sys.stderr)
        return 2
    began, measured = time.monotonic(), {}
    peers.START_SECONDS = START_SECONDS
    budget = instruction_budget.read()
    with tempfile.TemporaryDirectory(prefix="penstock-instructions-") as folder, peers.Processes() as processes:
        try:
            # Pinned nowhere: what is counted does not depend on the core, and not every machine has two.
            cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            origin = peers.Setting.prepare(pathlib.Path(folder), processes, cores)
            setting = Setting(origin.folder, processes, origin.values, cores)
            under = callgrind.Callgrind(chosen.binary, setting.folder, chosen.copies)
            built = instruction_budget.build(chosen.binary)
            for name in chosen.only:
                measured[name] = measure(name, setting, under, chosen)
                # What really costs more does so twice.
                if not (chosen.label or chosen.write_budget) and instruction_budget.compare(budget, {name: measured[name]}, instruction_cases.slack)[0]:
                    print(f"{name}: over the budget; once more")
                    measured[name] = measure(name, setting, under, chosen, "-again")
        except peers.Failed as failure:
            print(f"failed: {failure}\n{processes.logs()}", file=sys.stderr)
            return 1
    print(f"{chosen.label or 'penstock'}: " + ", ".join(f"{name} {what}" for name, what in built.items()) + f"; {time.monotonic() - began:.0f} s")
    if chosen.json:
        chosen.json.write_text(json.dumps({"label": chosen.label, "build": built, "cases": measured}, indent=1) + "\n")
    show(chosen, measured, budget)
    if chosen.write_budget:
        instruction_budget.write(built, measured, budget)
        print(f"written: {instruction_budget.BUDGET}")
    return 0 if chosen.label or chosen.write_budget else judge(built, measured, budget)


if __name__ == "__main__":
    sys.exit(main())
