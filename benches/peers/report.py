"""The report of the side-by-side run: JSON with every round, Markdown with medians, spreads and ratios."""

import json
import statistics

MODE_NAMES = {
    "h1": "HTTP/1.1, keep-alive",
    "h1-tls": "HTTP/1.1, keep-alive, over TLS 1.3",
}

METHOD = """\
Every proxy is one worker pinned to core 0 and does the same job: one route, a consistent-hash ring over two endpoints keyed
by `x-user-id` (1,024 users in turn), a limit per client address that is evaluated on every request and set too high to
refuse, and its own counters on; access logs are off. Origin (nginx `return 200`) and load generator (wrk) share core 1.
Rounds are interleaved. CPU time is utime + stime of the whole process from `/proc/<pid>/stat` over the round, divided by
the requests completed; it is exact to one clock tick (10 ms) per round. Ratios are taken within each round; the median is shown.
"""


def write(folder, facts, results):
    """Writes peers.json and peers.md; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = {mode: summarise(by_peer) for mode, by_peer in results.items()}
    whole = facts | {"summary": summary, "measurements": results}
    (folder / "peers.json").write_text(json.dumps(whole, indent=2) + "\n")
    path = folder / "peers.md"
    path.write_text(markdown(facts, summary))
    return path


def summarise(by_peer):
    """{peer: medians, spread, and Penstock's ratio to it}"""
    costs = {peer: [one["cpu_us_per_request"] for one in rounds] for peer, rounds in by_peer.items()}
    ours = costs.get("penstock")
    summary = {}
    for peer, rounds in by_peer.items():
        cost = costs[peer]
        summary[peer] = {
            "cpu_us_per_request": statistics.median(cost),
            "min": min(cost),
            "max": max(cost),
            "requests_per_second": statistics.median(one["requests_per_second"] for one in rounds),
            "core_share": statistics.median(one["core_share"] for one in rounds),
        }
        if ours and peer != "penstock":
            ratios = [mine / theirs for mine, theirs in zip(ours, cost)]
            summary[peer]["penstock_ratio"] = statistics.median(ratios)
            summary[peer]["penstock_ratio_min"] = min(ratios)
            summary[peer]["penstock_ratio_max"] = max(ratios)
    return summary


def markdown(facts, summary):
    machine = facts["machine"]
    lines = [
        "# Side by side: CPU time per request",
        "",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']} {machine['system']}",
        f"- date: {facts['date']}",
        f"- command: `{facts['command']}`",
        f"- load: {facts['connections']} connections, {facts['rounds']} rounds of {facts['seconds']} s"
        f" after {facts['warm_up_seconds']} s of warm-up",
        *(f"- {name}: {version}" for name, version in facts["versions"].items()),
        "",
        METHOD,
    ]
    for mode, by_peer in summary.items():
        lines += [
            f"## {MODE_NAMES[mode]}",
            "",
            "| proxy | CPU µs/request, median | min–max | requests/s | share of its core | penstock ÷ it, median | min–max |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for peer, figures in by_peer.items():
            ratio, ratio_spread = "", ""
            if "penstock_ratio" in figures:
                ratio = f"{figures['penstock_ratio']:.2f}"
                ratio_spread = f"{figures['penstock_ratio_min']:.2f}–{figures['penstock_ratio_max']:.2f}"
            lines.append(
                f"| {peer} | {figures['cpu_us_per_request']:.1f} | {figures['min']:.1f}–{figures['max']:.1f}"
                f" | {figures['requests_per_second']:.0f} | {figures['core_share']:.0%} | {ratio} | {ratio_spread} |"
            )
        lines.append("")
    return "\n".join(lines)
