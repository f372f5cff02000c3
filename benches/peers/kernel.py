#!/usr/bin/env python3
"""Where a proxy's kernel time goes: system calls and wake-ups of a request, and the kernel's functions, of Penstock and its peers.

Same setting as run.py: one worker on core 0, origin and wrk on core 1, rounds interleaved. Calls and wake-ups are counted by the kernel's own
tracepoints; strace would slow the proxies down and so change how many events one epoll_wait brings. Times come from sampling by perf: of a
function with all that it calls.

    benches/peers/kernel.py                                     Penstock and nginx, h1
    benches/peers/kernel.py --modes h1-tls --rounds 8

Needs root and perf (Debian package linux-perf). Exit 0: printed. 1: a program failed. 2: a program is missing, or a bad argument.
"""

import argparse
import collections
import pathlib
import signal
import subprocess
import sys
import tempfile

import peers
import run

CALLS = ("epoll_wait", "epoll_ctl", "recvfrom", "read", "getsockopt", "sendto", "write", "writev", "futex")
EVENTS = ["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{call}" for call in CALLS), "sched:sched_waking", "context-switches"]
# What of the kernel is shown: receiving, sending, the part of sending that hands the packet to its receiver, and of that waking the receiver.
FUNCTIONS = {
    "__sys_recvfrom": "receiving",
    "tcp_sendmsg": "sending",
    "tcp_v4_rcv": "of it, in the receiver's socket",
    "sock_def_readable": "of it, waking the receiver",
}
SAMPLES_A_SECOND = 4000


def tracepoints(pid):
    command = ["perf", "stat", "-x", ";", "-e", ",".join(EVENTS), "-p", str(pid)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def read_counts(text):
    """{event: count} of what perf stat wrote."""
    fields = (line.split(";") for line in text.splitlines())
    return collections.Counter({one[2].split(":")[-1]: int(one[0]) for one in fields if len(one) > 2 and one[0].isdigit()})


def read_samples(text):
    """How many of the stacks that perf script wrote are in the kernel for a system call, how many are not, and in how many each function is."""
    found = collections.Counter()
    for stack in text.split("\n\n"):
        names = {line.split(None, 1)[1] for line in stack.splitlines() if len(line.split(None, 1)) > 1}
        if not names:
            continue
        is_call = any(name.startswith("entry_SYSCALL") for name in names)
        found["system" if is_call else "user"] += 1
        found.update(names & FUNCTIONS.keys())
    return found


def measure(proxy, mode, chosen, data):
    """Counts of one round."""
    run.load(proxy.url(mode), 1, chosen.connections)
    counting = tracepoints(proxy.process.pid)
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_A_SECOND), "-g", "-p", str(proxy.process.pid), "-o", str(data)]
    sampling = subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = collections.Counter(requests=run.load(proxy.url(mode), chosen.seconds, chosen.connections))
    for process in (counting, sampling):
        process.send_signal(signal.SIGINT)
    sampling.wait()
    # What cannot be read of it is said on standard error, which is perf's own business.
    script = subprocess.run(["perf", "script", "-i", str(data), "-F", "ip,sym"], capture_output=True, text=True, check=False)
    return found + read_counts(counting.communicate()[1]) + read_samples(script.stdout)


def table(totals):
    """A row for each count and time, per request; what is next to nothing everywhere is left out."""
    def row(name, per_request):
        figures = [per_request(of) / of["requests"] for of in totals.values()]
        return [f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |"] if max(figures) >= 0.01 else []

    def microseconds(key):
        return lambda of: of[key] * 1e6 / SAMPLES_A_SECOND

    lines = ["| of a request | " + " | ".join(totals) + " |", "|---" + "|---:" * len(totals) + "|"]
    lines += row("system calls", lambda of: of["sys_enter"])
    for call in CALLS:
        lines += row(f"`{call}`", lambda of, call=call: of[f"sys_enter_{call}"])
    lines += row("wake-ups of others", lambda of: of["sched_waking"])
    lines += row("switches to another thread", lambda of: of["context-switches"])
    lines += row("µs outside the kernel", microseconds("user"))
    lines += row("µs in system calls", microseconds("system"))
    for function, what in FUNCTIONS.items():
        lines += row(f"{what} (`{function}`), µs", microseconds(function))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="penstock,nginx", help="comma-separated peers")
    parser.add_argument("--modes", default="h1", help="comma-separated modes")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    chosen = parser.parse_args()
    names = run.subset(parser, "--only", chosen.only, list(peers.PEERS))
    modes = run.subset(parser, "--modes", chosen.modes, run.MODES)
    missing = peers.missing(names) + ([] if peers.find("perf") else ["perf: Debian package linux-perf"])
    if missing:
        print("\n".join(f"missing: {line}" for line in missing), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="penstock-kernel-") as folder, peers.Processes() as processes:
        try:
            setting = peers.Setting.prepare(pathlib.Path(folder), processes)
            running = [peers.start(name, setting, processes) for name in names]
            for mode in modes:
                totals = {name: collections.Counter() for name in names}
                for number in range(chosen.rounds):
                    turn = number % len(running)
                    for proxy in running[turn:] + running[:turn]:
                        totals[proxy.name] += measure(proxy, mode, chosen, setting.folder / "perf.data")
                print(f"\n{mode}, {chosen.connections} connections, {chosen.rounds} rounds of {chosen.seconds} s\n\n{table(totals)}", flush=True)
        except peers.Failed as failure:
            print(f"failed: {failure}\n{processes.logs()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
