#!/usr/bin/env python3
"""Checks the dashboards and the alert rules; prints every finding and exits 1 if there is one.

    grafana/check.py                    the lint rules, the PromQL, the annotations, the runbook links, the tests; and that code, the list of
                                        metrics in docs/operating/metrics.md, dashboards and alerts name the same metrics
    grafana/check.py --metrics FILE     also: every metric, label and label value that is used exists in this /metrics text, and what the
                                        code and the list name is in it, with the labels and the HELP
                                        of the list

The lint rules are those of grafana/dashboard-linter, under its names; template-unused and dashboard-links are ours. Expressions are parsed by promtool.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CRATES = ("gateway", "seckill", "seckill/stock", "seckill/delivery", "payment", "limiter")
RUNBOOK = HERE.parent / "docs" / "operating" / "runbooks.md"
METRICS_LIST = HERE.parent / "docs" / "operating" / "metrics.md"
RUNBOOK_URL = "https://github.com/penstock/penstock/blob/main/docs/operating/runbooks.md#"

# Panels that must carry a title, a description, a unit and queries. The others carry no data of their own.
DATA_PANELS = {"stat", "gauge", "bargauge", "timeseries", "table", "heatmap", "state-timeline", "barchart", "piechart"}
WITHOUT_QUERY = {"row", "text", "alertlist"}
UNITS = set("none short percent percentunit bytes decbytes Bps binBps s ms µs ns dtdurations dateTimeFromNow reqps rps ops cps wps iops bool bool_yes_no".split())
RANGE_FUNCTIONS = {"rate", "irate", "increase"}
# What Prometheus itself adds to every scrape.
SYNTHETIC = {"up", "scrape_duration_seconds", "scrape_samples_scraped", "ALERTS"}
# Labels that come from the scrape and not from the process.
SCRAPE_LABELS = {"job", "instance"}
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf", "nan"}
SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)?\s*(?P<braces>\{[^}]*\})?\s*(?P<range>\[[^\]]*\])?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


# --- PromQL, as far as the checks need it ------------------------------------------------------------------------------------------------


def selectors(expr):
    """(metric, [(label, operator, value)], range or None, calling function or None) of each selector of the expression."""
    expr = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", lambda m: " " * len(m.group()), expr)
    found, position, calls = [], 0, []
    while position < len(expr):
        character = expr[position]
        if character == "(":
            before = re.search(r"([a-zA-Z_]\w*)\s*$", expr[:position])
            calls.append(before.group(1) if before and before.group(1) not in KEYWORDS else None)
        elif character == ")" and calls:
            calls.pop()
        elif character == '"':
            position = expr.index('"', position + 1)
        elif re.match(r"\d", character):  # a number or a duration such as 1h
            position += len(re.match(r"[\d.]+[a-z]*", expr[position:]).group())
            continue
        elif re.match(r"[a-zA-Z_:{]", character):
            match = SELECTOR.match(expr, position)
            name, after = match.group("name"), expr[match.end():].lstrip()
            if name not in KEYWORDS and not after.startswith("(") or match.group("braces"):
                found.append((name, MATCHER.findall(match.group("braces") or ""), match.group("range"), calls[-1] if calls else None))
                position = match.end()
            else:
                position += len(name)
            continue
        position += 1
    return found


def grouping_labels(expr):
    """Every label the expression groups or matches by."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expr)
    return {label.strip() for text in lists for label in text.split(",") if label.strip()}


def parses(expressions):
    """What promtool says against these expressions, one finding each; the dashboard's variables are given a value first."""
    rules = []
    for n, (_, expr) in enumerate(expressions):
        expr = expr.replace("$__rate_interval", "20s").replace("$__interval", "20s").replace("$__range", "1h")
        rules.append({"record": f"expression_{n}", "expr": re.sub(r"\$\{?\w+\}?", "x", expr)})
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"groups": [{"name": "check", "rules": rules}]}, file)  # JSON is YAML
        file.flush()
        result = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    if result.returncode == 0:
        return []
    output = result.stdout + result.stderr
    bad = [f"target-promql: {where}: {expr}" for n, (where, expr) in enumerate(expressions) if re.search(rf'"expression_{n}"', output)]
    return bad or [f"target-promql: {output.strip()}"]


# --- Dashboards --------------------------------------------------------------------------------------------------------------------------


def panels_of(dashboard):
    for panel in dashboard.get("panels", []):
        yield panel
        yield from panel.get("panels", [])


def lint(dashboard):
    """The 17 lint rules of the linter and two of ours, as findings."""
    findings, title = [], dashboard.get("title", "?")
    variables = dashboard.get("templating", {}).get("list", [])
    by_name = {v.get("name"): v for v in variables}

    if dashboard.get("editable") is not False:
        findings.append(f"uneditable-dashboard: {title} must have editable: false")
    sources = [v for v in variables if v.get("type") == "datasource"]
    if len(sources) != 1 or (sources[0]["name"], sources[0].get("label"), sources[0].get("query")) != ("datasource", "Data source", "prometheus"):
        findings.append("template-datasource: one variable 'datasource', labelled 'Data source', over prometheus is needed")
    for name in ("job", "instance"):
        v = by_name.get(name, {})
        if (v.get("type"), v.get("label"), v.get("multi"), v.get("allValue"), v.get("datasource", {}).get("uid")) != (
            "query", name.title(), True, ".+", "${datasource}"):
            findings.append(f"template-{name}: variable '{name}' must be a multi-value query over ${{datasource}}, labelled, allValue .+")
    for v in variables:
        if v.get("type") != "query":
            continue
        if not re.fullmatch(r"(label_names|label_values|metrics|query_result)\(.+\)", v.get("query", "")):
            findings.append(f"template-label-promql: variable '{v.get('name')}' has the query '{v.get('query')}'")
        if v.get("refresh") != 2:
            findings.append(f"template-on-time-change-reload: variable '{v.get('name')}' must refresh on time range change (2)")

        if v.get("name") not in ("job", "instance") and f"${v.get('name')}" not in json.dumps(dashboard.get("panels", [])):
            findings.append(f"template-unused: no panel uses the variable '{v.get('name')}'")
    if not any(link.get("type") == "dashboards" and set(link.get("tags", [])) <= set(dashboard.get("tags", [])) for link in dashboard.get("links", [])):
        findings.append(f"dashboard-links: {title} needs links to the others of its tag")

    ids = [p.get("id") for p in panels_of(dashboard)]
    if len(ids) != len(set(ids)):
        findings.append("panel-id: two panels share an id")
    for panel in panels_of(dashboard):
        if panel.get("type") in WITHOUT_QUERY:
            continue
        findings += lint_panel(panel)
    return findings


def lint_panel(panel):
    findings, name = [], panel.get("title") or f"panel {panel.get('id')}"
    if panel.get("type") not in DATA_PANELS:
        findings.append(f"panel-type: '{name}' is a {panel.get('type')}, which these checks do not know")
    if not panel.get("title") or not panel.get("description"):
        findings.append(f"panel-title-description: '{name}' needs a title and a description")
    if panel.get("fieldConfig", {}).get("defaults", {}).get("unit") not in UNITS:
        findings.append(f"panel-units: '{name}' has no unit of the list")
    if panel.get("datasource", {}).get("uid") != "${datasource}":
        findings.append(f"panel-datasource: '{name}' does not use ${{datasource}}")
    if not panel.get("targets"):
        findings.append(f"panel-no-targets: '{name}' has no query")
    for target in panel.get("targets", []):
        findings += [f"{rule}: '{name}' {target.get('refId')}: {what}" for rule, what in lint_target(target)]
    return findings


def lint_target(target):
    expr = target.get("expr", "")
    if target.get("datasource", {}).get("type") != "prometheus":
        # One source only; the two LogQL rules hold because there is no LogQL.
        yield "target-logql", "only Prometheus queries are used here"
        yield "target-logql-auto", "only Prometheus queries are used here"
    if not selectors(expr):
        yield "target-promql", f"no metric in '{expr}'"
    for metric, matchers, window, function in selectors(expr):
        for label in ("job", "instance"):
            # A recorded rate is one for all nodes: its rule sums over them.
            is_recorded = label == "instance" and ":" in (metric or "")
            if not is_recorded and (label, "=~", f"${label}") not in matchers:
                yield f"target-{label}", f'{metric} needs {label}=~"${label}"'
        if window and window != "[$__rate_interval]":
            yield "target-rate-interval", f"{metric}{window} must use $__rate_interval"
        if metric and metric.endswith("_total") and (not window or function not in RANGE_FUNCTIONS):
            yield "target-counter-agg", f"{metric} is a counter and must be inside rate, irate or increase"


# --- Rules -------------------------------------------------------------------------------------------------------------------------------


def alerts(text):
    """(name, start, end) of each alert's block in a rule file."""
    for match in re.finditer(r"^ {6}- alert: (\w+)$", text, re.M):
        end = re.compile(r"^ {6}- |^ {2}- name|^ {6}#|\Z", re.M).search(text, match.end()).start()
        yield match.group(1), match.start(), end


def rule_expressions(text):
    """(rule name, expression) of a rule file."""
    for match in re.finditer(r"^ {6}- (?:alert|record): (\S+)\n {8}expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", text, re.M):
        yield match.group(1), match.group(2) or match.group(3)


def headings(markdown):
    """The anchors GitHub gives to the headings of a page."""
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", markdown, re.M)}


def check_rules(text, tests, runbook):
    findings = []
    anchors = headings(runbook)
    for name, start, end in alerts(text):
        block = text[start:end]
        if not re.search(r"severity: (page|ticket|none)\b", block):
            findings.append(f"alert-severity: {name} needs severity page, ticket or none")
        if "summary:" not in block:
            findings.append(f"alert-summary: {name} has no summary")
        link = re.search(r"runbook_url: (\S+)", block)
        if not link or not link.group(1).startswith(RUNBOOK_URL) or link.group(1).removeprefix(RUNBOOK_URL) not in anchors:
            findings.append(f"alert-runbook: {name} does not link to a section of docs/operating/runbooks.md")
        if not re.search(rf"alertname: {name}\n", tests):
            findings.append(f"alert-test: {name} has no test in which it fires")
    if not list(alerts(text)):
        findings.append("alert: the rule file holds no alert")
    return findings


# --- Against a real /metrics -------------------------------------------------------------------------------------------------------------


def parse_metrics(text):
    """metric -> {label -> set of values}, of a Prometheus text exposition."""
    metrics = {}
    for line in text.splitlines():
        match = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? [^ ]+", line)
        if match and not line.startswith("#"):
            labels = metrics.setdefault(match.group(1), {})
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""):
                labels.setdefault(label, set()).add(value)
    return metrics


def check_use(expressions, metrics, recorded):
    """Findings for what the expressions name and the process does not export."""
    findings = set()
    for where, expr, mentioned in expressions:
        known, complete = set(SCRAPE_LABELS) | {"alertname", "alertstate", "severity"}, True
        for name, matchers, _, _ in selectors(expr):
            if name in SYNTHETIC:
                continue
            if name in recorded:
                complete = False
                continue
            if name not in metrics:
                findings.add(f"metric: {where} uses {name}, which /metrics does not have")
                complete = False
                continue
            known |= set(metrics[name])
            for label, operator, value in matchers:
                if label in SCRAPE_LABELS:
                    continue
                if label not in metrics[name]:
                    findings.add(f"label: {where} selects {name} by {label}, which it does not have")
                elif re.fullmatch(r"[\w|]+", value) and label != "le":
                    for one in value.split("|"):
                        if one not in metrics[name][label]:
                            findings.add(f"label-value: {where} selects {name}{{{label}{operator}\"{one}\"}}, which is not in /metrics")
        if complete:
            for label in (grouping_labels(expr) | mentioned) - known:
                findings.add(f"label: {where} uses the label {label}, which none of its metrics has")
    return sorted(findings)


# --- The code, the list in the docs, and what is used ------------------------------------------------------------------------------------


def metrics_of_code(files):
    """The metrics that the sources name, tests left out."""
    found = set()
    for path, text in files:
        if "tests" in path.parts or path.name == "tests.rs":
            continue
        text = re.split(r"^#\[cfg\(test\)\]\nmod tests \{", text, flags=re.M)[0]
        found |= set(re.findall(r'"((?:penstock|process)_[a-z_]+)"', text))
    return found


def sources():
    for crate in CRATES:
        for path in sorted((HERE.parent / crate / "src").rglob("*.rs")):
            yield path.relative_to(HERE.parent), path.read_text()


def metrics_of_list(markdown):
    """metric -> labels, of the table under the heading "Metrics"."""
    section = re.search(r"^#+ Metrics$(.*?)(?=^#|\Z)", markdown, re.M | re.S)
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", section.group(1), re.M) if section else []
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def help_of_list(markdown):
    """metric -> its HELP, of the same table: the last column as plain text, from a capital letter on."""
    texts = {}
    for name, text in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", markdown, re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text.strip()).replace("`", "")
        text = re.sub(r", see [A-Z].*", "", text)
        texts[name] = text[:1].upper() + text[1:]
    return texts


def check_help(page, texts):
    """Findings where the HELP lines of a /metrics text and the list differ."""
    told = dict(re.findall(r"^# HELP (\w+) (.*)$", page, re.M))
    return [f"metric-help: {name} says '{told[name]}', docs/operating/metrics.md '{texts[name]}'" for name in sorted(texts.keys() & told.keys())
            if told[name] != texts[name]] + [f"metric-help: {name} has no HELP" for name in sorted(texts.keys() - told.keys())]


def family(name, known):
    """The metric that a series belongs to: a histogram has three."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in known else name


def check_lists(code, listed, expressions, recorded, metrics=None):
    """Findings where the code, the list in the docs, what is used, and a /metrics text differ."""
    findings = [f"metric-list: {name} is in the code and not in docs/operating/metrics.md" for name in code - set(listed)]
    findings += [f"metric-list: {name} is in docs/operating/metrics.md and not in the code" for name in set(listed) - code]
    used = set()
    for where, expr, _ in expressions:
        for name, _, _, _ in selectors(expr):
            if name and name not in SYNTHETIC | recorded:
                used.add(family(name, code))
                if family(name, code) not in code:
                    findings.append(f"metric-unknown: {where} uses {name}, which the code does not have")
    findings += [f"metric-unused: {name} is on no dashboard and in no alert" for name in code - used]
    if metrics is not None:
        exported = {}
        for name, labels in metrics.items():
            exported.setdefault(family(name, code), set()).update(set(labels) - {"le"})
        findings += [f"metric-silent: {name} is in the code and not on /metrics" for name in code - set(exported)]
        findings += [f"metric-list: {name} is on /metrics and not in docs/operating/metrics.md" for name in set(exported) - set(listed)]
        for name in set(exported) & set(listed):
            if exported[name] != listed[name]:
                findings.append(f"metric-labels: {name} has the labels {sorted(exported[name])}, docs/operating/metrics.md says {sorted(listed[name])}")
    return sorted(findings)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--metrics", type=pathlib.Path, metavar="FILE", help="a /metrics text of a running gateway with one sale")
    arguments = arguments.parse_args()

    findings, expressions = [], []
    for path in sorted((HERE / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        findings += [f"{path.name}: {finding}" for finding in lint(dashboard)]
        for panel in panels_of(dashboard):
            for target in panel.get("targets", []):
                mentioned = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat", "")))
                expressions.append((f"{path.name} '{panel['title']}'", target["expr"], mentioned))
        for variable in dashboard.get("templating", {}).get("list", []):
            inner = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("query", ""))
            if inner:
                expressions.append((f"{path.name} variable {variable['name']}", inner.group(1), {inner.group(2)}))

    recorded, tests = set(), "".join(p.read_text() for p in sorted((HERE / "rules").glob("*.test.yml")))
    for path in sorted((HERE / "rules").glob("*.rules.yml")):
        text = path.read_text()
        recorded |= set(re.findall(r"^ {6}- record: (\S+)$", text, re.M))
        findings += [f"{path.name}: {finding}" for finding in check_rules(text, tests, RUNBOOK.read_text())]
        blocks = {name: text[start:end] for name, start, end in alerts(text)}
        for name, expr in rule_expressions(text):
            mentioned = set(re.findall(r"\$labels\.(\w+)", blocks.get(name, "")))
            expressions.append((f"{path.name} {name}", expr, mentioned))

    findings += parses([(where, expr) for where, expr, _ in expressions])
    metrics = None
    if arguments.metrics:
        page = arguments.metrics.read_text()
        metrics = parse_metrics(page)
        findings += check_use(expressions, metrics, recorded)
        findings += check_help(page, help_of_list(METRICS_LIST.read_text()))
    findings += check_lists(metrics_of_code(sources()), metrics_of_list(METRICS_LIST.read_text()), expressions, recorded, metrics)
    for finding in findings:
        print(finding)
    print(f"{len(expressions)} expressions checked, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
