"""The budget of the instruction counts: what a request may cost, kept in a file, and what is said when it costs more."""

import json
import pathlib
import platform
import re

import peers

BUDGET = peers.HERE / "instructions.json"
# What is compared, and how it is printed.
METRICS = {"instructions": ",.0f", "allocations": ",.2f", "system_calls": ",.2f", "clock_reads": ",.2f"}
SLACK = 0.03
# Of each case, the functions that the file keeps, so that a failure can say which of them grew.
KEPT_FUNCTIONS = 30
SHOWN_FUNCTIONS, WORTH_TELLING = 10, 0.001
# Of what valgrind passes on of the host's processor, what decides which code the libraries choose.
CPU_FLAGS = ("avx2", "f16c", "rdrand", "rdseed")


def build(binary):
    """What the counts depend on besides the source: where it differs, they cannot be compared."""
    rustc = re.search(r"rustc version (\S+ \(\w+)", peers.output_of(["readelf", "-p", ".comment", str(binary)]))
    flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "rustc": f"{rustc.group(1)})" if rustc else "unknown",
        "valgrind": peers.output_of(["valgrind", "--version"]).strip(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": " ".join([platform.machine(), *(flag for flag in CPU_FLAGS if flags and flag in flags.group(1).split())]),
    }


def heaviest(one, count):
    """Of a measured case, the functions that most instructions are executed in."""
    functions = sorted(one["functions"].items(), key=lambda item: -item[1])[:count]
    return {name: round(instructions) for name, instructions in functions}


def of_case(one):
    """What the file keeps of a measured case."""
    return {metric: rounded(one[metric]) for metric in METRICS} | {"functions": heaviest(one, KEPT_FUNCTIONS)}


def rounded(figure):
    return round(figure) if figure >= 1000 else round(figure, 2)


def read(path=BUDGET):
    return json.loads(path.read_text()) if path.exists() else {"build": {}, "cases": {}}


def write(built, measured, older, path=BUDGET):
    """Cases that were not measured stay as they are."""
    cases = older["cases"] | {name: of_case(one) for name, one in measured.items()}
    path.write_text(json.dumps({"build": built, "cases": cases}, indent=1, ensure_ascii=False) + "\n")


def change(now, then):
    return now / then - 1 if then else float(now > 0)


def compare(budget, measured, slack):
    """One line for what is over its budget, and one for what is so far under it that the budget should follow: (over, under)."""
    over, under = [], []
    for name, one in measured.items():
        kept = budget["cases"].get(name)
        if kept is None:
            over.append(f"{name}: has no budget; --write-budget gives it one")
            continue
        for metric, form in METRICS.items():
            allowed, by = slack(name, metric), change(one[metric], kept[metric])
            line = f"{name}: {metric} {kept[metric]:{form}} → {one[metric]:{form}} ({by:+.1%}, slack {allowed:.0%})"
            if by > allowed:
                over += [line, *(grown(kept, one) if metric == "instructions" else [])]
            elif by < -allowed:
                under.append(line)
    return over, under


def grown(kept, one):
    """The functions that account for most of the growth, of those that the file keeps or that are new among the heaviest."""
    names = kept["functions"].keys() | heaviest(one, KEPT_FUNCTIONS).keys()
    # What the file does not keep cost at most as much as the lightest that it keeps.
    least = min(kept["functions"].values(), default=0)
    more = {name: one["functions"].get(name, 0) - kept["functions"].get(name, least) for name in names}
    shown = sorted(more.items(), key=lambda item: -item[1])[:SHOWN_FUNCTIONS]
    return [f"    {count:+,.0f}  {name}" for name, count in shown if count >= WORTH_TELLING * one["instructions"]]


def table(measured, budget):
    lines = [
        "| case | instructions | spread | of the budget | allocations | system calls | clock reads | instructions of other threads |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in measured.items():
        kept = budget["cases"].get(name)
        of_budget = f"{change(one['instructions'], kept['instructions']):+.1%}" if kept else ""
        figures = " | ".join(f"{one[metric]:{form}}" for metric, form in METRICS.items() if metric != "instructions")
        spread = f"{one['spread']['instructions']:.1%}"
        lines.append(f"| {name} | {one['instructions']:,.0f} | {spread} | {of_budget} | {figures} | {one['behind']:,.0f} |")
    return "\n".join(lines)


def calls_table(measured):
    """The system calls of each case by name; what is rarer than one in twenty requests is left out."""
    lines = []
    for name, one in measured.items():
        calls = sorted(one["calls"].items(), key=lambda item: -item[1])
        lines.append(f"{name}: " + ", ".join(f"{call} {count:.2f}" for call, count in calls if count >= 0.05))
    return "\n".join(lines)
