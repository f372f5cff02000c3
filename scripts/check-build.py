#!/usr/bin/env python3
"""How lean the build is: counts the crates that the program is made of, and prints the slowest units of the last timed build.

    cargo build --release --timings && scripts/check-build.py

Exits 1 if there are more crates than LIMIT. Without a timed build only the crates are counted.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
# What a newcomer waits for grows with it, and what has to be watched for security holes. Raise it for a reason only.
LIMIT = 285
SLOWEST = 10


def crates():
    """Name and version of each crate of the program, build scripts' included."""
    command = ["cargo", "tree", "--locked", "-p", "gateway", "-e", "normal,build", "--prefix", "none"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {tuple(line.split()[:2]) for line in listing.splitlines() if line.strip()}


def units(page):
    """(seconds, what) of each unit in cargo's page, slowest first."""
    found = re.search(r"UNIT_DATA = (\[.*?\]);", page, re.S)
    data = json.loads(found.group(1)) if found else []
    return sorted(((unit["duration"], f"{unit['name']} {unit['version']}{unit['target']}") for unit in data), reverse=True)


def main():
    count = len(crates())
    print(f"{count} crates, at most {LIMIT}")
    timings = TARGET / "cargo-timings" / "cargo-timing.html"
    if timings.exists():
        for seconds, what in units(timings.read_text())[:SLOWEST]:
            print(f"{seconds:7.1f} s  {what}")
    if count > LIMIT:
        print(f"{count - LIMIT} crates too many: see `cargo tree -p gateway -e normal,build -d` for doubles", file=sys.stderr)
    return int(count > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
