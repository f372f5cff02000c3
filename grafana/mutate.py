#!/usr/bin/env python3
"""The negative control of the alert tests: breaks every alert on purpose and demands that a promtool test fails.

For each alert: every threshold is made laxer and stricter by half, `for` is dropped and doubled, each `and` becomes `or`, each `unless`
becomes `and`. A change that no test notices is printed and the exit code is 1. Only the test groups that name the alert are run.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from check import alerts

RULES = pathlib.Path(__file__).parent / "rules"
RULE_FILE = "penstock.rules.yml"
# A threshold: a number beside a comparison or a product, the quantile, and nothing in label values or durations.
NUMBER = re.compile(r"(?<![\w.\[\"])(\d+(?:\.\d+)?)(?![\w.\]])")


def outside_braces(expr):
    """Blanks label matchers and grouping lists, same length, so that offsets still fit."""
    return re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\bon \([^)]*\)|\[[^\]]*\]|offset \w+", lambda m: "#" * len(m.group()), expr)


def mutants(block):
    """(what was changed, the changed block)"""
    head = block.index("expr:")
    tail = re.compile(r"^ {8}(for|labels):", re.M).search(block).start()
    expr = block[head:tail]
    visible = outside_braces(expr)
    if "vector(1)" in expr:
        return  # the watchdog has no threshold
    for m in NUMBER.finditer(visible):
        value = float(m.group(1))
        for changed in ((value * 1.5, value * 0.5) if value else (1.5, -1)):
            yield f"{m.group(1)} -> {changed:g}", block[:head] + expr[: m.start()] + f"{changed:.10g}" + expr[m.end():] + block[tail:]
    for word, other in (("and", "or"), ("unless", "and")):
        for m in re.finditer(rf"\b{word}\b", visible):
            # `or` between sets keeps the other side's samples; that is what a slip of the pen would do.
            yield f"{word} -> {other}", block[:head] + expr[: m.start()] + other + expr[m.end():] + block[tail:]
    wait = re.search(r"^ {8}for: (\d+)([sm])\n", block, re.M)
    if wait:
        yield "for dropped", block[: wait.start()] + block[wait.end():]
        yield "for doubled", block.replace(wait.group(0), f"        for: {int(wait.group(1)) * 2}{wait.group(2)}\n")
    yield "never fires", block[:head] + "expr: vector(0) > 1\n" + block[tail:]


def groups_for(name):
    """The test files cut down to the groups that name the alert."""
    for path in sorted(RULES.glob("*.test.yml")):
        head, *groups = re.split(r"(?m)^(?=  - name:)", path.read_text())
        chosen = [g for g in groups if f"alertname: {name}\n" in g or f"alertname: {name}," in g]
        if chosen:
            yield path.name, head + "".join(chosen)


def noticed(rules, name):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / RULE_FILE).write_text(rules)
        files = []
        for file, text in groups_for(name):
            (folder / file).write_text(text)
            files.append(str(folder / file))
        check = subprocess.run(["promtool", "check", "rules", str(folder / RULE_FILE)], capture_output=True, text=True)
        if check.returncode:
            sys.exit(f"{name}: the changed rule is not valid PromQL, mutate.py is wrong:\n{check.stdout}{check.stderr}")
        return subprocess.run(["promtool", "test", "rules", *files], capture_output=True).returncode != 0


def main():
    text = (RULES / RULE_FILE).read_text()
    names = [name for name, _, _ in alerts(text)]
    untested = [name for name in names if not list(groups_for(name))]
    if untested:
        sys.exit(f"alerts without a test: {', '.join(untested)}")
    if subprocess.run(["promtool", "test", "rules", *map(str, sorted(RULES.glob("*.test.yml")))]).returncode:
        sys.exit("the tests fail before anything is changed")
    jobs = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, start, end in alerts(text):
            for what, block in mutants(text[start:end]):
                jobs.append((name, what, pool.submit(noticed, text[:start] + block + text[end:], name)))
    survivors = [f"{name}: {what}" for name, what, job in jobs if not job.result()]
    for line in survivors:
        print(f"not noticed by any test: {line}")
    print(f"{len(jobs)} broken rules, {len(jobs) - len(survivors)} noticed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
