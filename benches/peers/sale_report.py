"""The report of the sale's figures: which measurements make which figure, its bar, and whether it is reached."""

import dataclasses
import json
import statistics

# What is measured, in the order of a round: how it is called in the report.
MEASUREMENTS = {
    "sold-out": "sold out, refused from memory",
    "nginx": "nginx `return 200`",
    "single": "single EVALSHA, redis-benchmark",
    "redis-all": "accepted, Redis, settled by the same process",
    "redis-edge": "accepted, Redis on a core of its own, role `edge` (settled by others)",
    "embedded": "accepted, embedded, on disk before the answer",
    "settle": "settled into PostgreSQL",
    "settle-outbox": "settled, with an event each in the outbox",
    "insert-indexed": "bare INSERT … UNNEST, all four indexes",
    "insert-keyed": "bare INSERT … UNNEST, primary key only",
}

UNITS = {
    "cpu_us": "CPU µs of the server each",
    "redis_cpu_us": "CPU µs of Redis each",
    "postgres_cpu_us": "CPU µs of PostgreSQL each",
    "per_second": "per second",
}


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One line of the table of bars: a unit of two measurements, divided round by round."""

    text: str
    unit: str
    ours: str
    theirs: str
    # None: told beside a bar, but without one of its own.
    at_most: float | None = None
    at_least: float | None = None

    def bar(self):
        return f"≤ {self.at_most}" if self.at_most else f"≥ {self.at_least}" if self.at_least else ""

    def verdict(self, value):
        if self.at_most is None and self.at_least is None:
            return ""
        is_reached = value <= self.at_most if self.at_most else value >= self.at_least
        return "reached" if is_reached else "**not reached**"


FIGURES = {
    "sold-out": [Ratio("sold-out answer: CPU ÷ nginx `return 200`", "cpu_us", "sold-out", "nginx", at_most=2)],
    "redis-cpu": [
        Ratio("Redis CPU per reservation ÷ single EVALSHA", "redis_cpu_us", "redis-edge", "single", at_most=0.35),
        Ratio("the same with what settlement asks of Redis", "redis_cpu_us", "redis-all", "single"),
    ],
    "redis-rate": [
        Ratio("accepted/s, Redis store ÷ single EVALSHA/s", "per_second", "redis-all", "single", at_least=0.5),
    ],
    "embedded-rate": [
        Ratio("accepted/s, embedded and durable ÷ Redis store", "per_second", "embedded", "redis-all", at_least=1),
    ],
    "settlement-rate": [
        Ratio("settled/s ÷ bare INSERT with the same indexes", "per_second", "settle", "insert-indexed", at_least=0.3),
        Ratio("settled/s ÷ bare INSERT with the primary key only", "per_second", "settle", "insert-keyed", at_least=0.3),
        Ratio("settled/s with the outbox ÷ bare INSERT with the same indexes", "per_second", "settle-outbox", "insert-indexed"),
    ],
}

METHOD = """\
Two cores are shared by all of a run. Core 1 has Redis, PostgreSQL and the load generator wrk; core 0 has nginx, redis-benchmark, the
client of settlement and inserts, and the gateway's sold-out answers. A gateway whose accepted purchases are counted (one data-plane
worker; journal, settlement and SQLite are threads beside it) may use both cores, as the baseline does with redis-benchmark on one and
Redis on the other; with wrk, the gateway and Redis on them there is more to do on the two. Where Redis CPU time is compared, Redis has
core 1 to itself, as in the baseline; gateway and wrk share core 0. Rounds are interleaved; ratios are taken within each round and the
median is shown with its spread. CPU time is utime + stime of the process (PostgreSQL: of all its processes) from `/proc/<pid>/stat`.

- The single EVALSHA is `single.lua`: the same checks and the same lasting writes as the library, one purchase a call, no pipeline,
  50 connections, from redis-benchmark. Redis keeps everything in memory, in the baseline and under the gateway (`fast`).
- Accepted purchases are counted by the store and settled into SQLite; their CPU time runs until the last one is settled, their rate
  counts the time of the load alone. wrk sends as fast as answers come, each request from a buyer of its own under a new key.
- Settlement is the real worker: from the embedded store's queue through the guarded transaction to the acknowledgement, 256 orders
  a transaction, one after the other. The bare insert sends the same columns, 256 rows a transaction, on one connection. `order_orders`
  has four indexes: primary key (order_id), unique (sale, sku, buyer, request_id), (sale, sku, status, quantity), and pay_by_ms of
  unpaid orders.
"""


def measurements(figures):
    """What must be measured for these figures."""
    names = {name for figure in figures for ratio in FIGURES[figure] for name in (ratio.ours, ratio.theirs)}
    return names


def write(folder, facts, figures, results):
    """Writes sale.json and sale.md; the path of the latter."""
    ratios = [summary(ratio, results) for figure in figures for ratio in FIGURES[figure]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sale.json").write_text(json.dumps(facts | {"ratios": ratios, "measurements": results}, indent=2) + "\n")
    path = folder / "sale.md"
    path.write_text(markdown(facts, ratios, results))
    return path


def summary(ratio, results):
    pairs = zip(results[ratio.ours], results[ratio.theirs])
    values = [ours[ratio.unit] / theirs[ratio.unit] for ours, theirs in pairs]
    median = statistics.median(values)
    return {
        "what": ratio.text, "median": median, "min": min(values), "max": max(values), "bar": ratio.bar(),
        "verdict": ratio.verdict(median),
    }


def markdown(facts, ratios, results):
    lines = ["# The sale's figures", "", *header(facts), "", METHOD]
    lines += ["| what | ratio, median | min–max | bar | |", "|---|---:|---:|---:|---|"]
    for one in ratios:
        lines.append(f"| {one['what']} | {one['median']:.2f} | {one['min']:.2f}–{one['max']:.2f} | {one['bar']} | {one['verdict']} |")
    lines += ["", "| measurement | unit | median | min–max |", "|---|---|---:|---:|"]
    for name, rounds in results.items():
        for unit in rounds[0]:
            figures = [one[unit] for one in rounds]
            digits = 0 if unit == "per_second" else 1
            median, low, high = (f"{figure:,.{digits}f}" for figure in (statistics.median(figures), min(figures), max(figures)))
            lines.append(f"| {MEASUREMENTS[name]} | {UNITS[unit]} | {median} | {low}–{high} |")
    return "\n".join(lines) + "\n"


def header(facts):
    """The lines that every report starts with."""
    machine = facts["machine"]
    return [
        f"- machine: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']} {machine['system']}",
        f"- date: {facts['date']}",
        f"- command: `{facts['command']}`",
        f"- load average when it began (what else the machine was doing): {facts['load_average_before']:.1f}",
        f"- settings: {', '.join(f'{name} {value}' for name, value in facts['settings'].items())}",
        *(f"- {name}: {version}" for name, version in facts["versions"].items()),
    ]
