"""Tests of check.py: each rule finds the fault it is for, and the shipped files have none.

    python3 -m unittest discover -s grafana -p '*_test.py'
"""

import copy
import itertools
import json
import pathlib
import unittest

import build
import check
import panels

HERE = pathlib.Path(__file__).parent
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted((HERE / "dashboards").glob("*.json"))}
DASHBOARD = DASHBOARDS["penstock.json"]
SEL = 'job=~"$job",instance=~"$instance"'


def rules_found(change):
    """The names of the rules that complain after `change` was done to the shipped overview."""
    dashboard = copy.deepcopy(DASHBOARD)
    change(dashboard)
    return {finding.split(":")[0] for finding in check.lint(dashboard)}


def first_panel(dashboard):
    return next(p for p in check.panels_of(dashboard) if p["type"] == "timeseries")


def set_expr(expr):
    def change(dashboard):
        first_panel(dashboard)["targets"][0]["expr"] = expr
    return change


def variable(dashboard, name):
    return next(v for v in dashboard["templating"]["list"] if v["name"] == name)


class Lint(unittest.TestCase):
    def test_the_shipped_dashboards_have_no_finding(self):
        for name, dashboard in DASHBOARDS.items():
            with self.subTest(name):
                self.assertEqual(check.lint(dashboard), [])

    def test_the_shipped_dashboards_are_what_build_writes(self):
        for path, text in build.written():
            with self.subTest(path.name):
                self.assertEqual(path.read_text(), text)
        self.assertEqual(len({dashboard["uid"] for dashboard in DASHBOARDS.values()}), len(build.BOARDS))

    def test_no_panel_stands_on_another(self):
        for name, dashboard in DASHBOARDS.items():
            taken = {}
            for panel in check.panels_of(dashboard):
                at = panel["gridPos"]
                self.assertLessEqual(at["x"] + at["w"], 24, f"{name} {panel['title']}")
                for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
                    self.assertNotIn(cell, taken, f"{name}: {panel['title']} on {taken.get(cell)}")
                    taken[cell] = panel["title"]

    def test_each_rule_finds_its_fault(self):
        faults = {
            "uneditable-dashboard": lambda d: d.update(editable=True),
            "template-datasource": lambda d: variable(d, "datasource").update(name="ds"),
            "template-job": lambda d: variable(d, "job").update(allValue=".*"),
            "template-instance": lambda d: d["templating"]["list"].remove(variable(d, "instance")),
            "template-label-promql": lambda d: variable(d, "sale").update(query="sales()"),
            "template-on-time-change-reload": lambda d: variable(d, "sale").update(refresh=1),
            "template-unused": lambda d: d["templating"]["list"].append({**variable(d, "sale"), "name": "nobody"}),
            "dashboard-links": lambda d: d.update(links=[]),
            "panel-datasource": lambda d: first_panel(d).update(datasource={"uid": "prometheus"}),
            "panel-title-description": lambda d: first_panel(d).update(description=""),
            "panel-units": lambda d: first_panel(d)["fieldConfig"]["defaults"].update(unit="furlong"),
            "panel-no-targets": lambda d: first_panel(d).update(targets=[]),
            "panel-type": lambda d: first_panel(d).update(type="graph"),
            "panel-id": lambda d: first_panel(d).update(id=1),
            "target-logql": lambda d: first_panel(d)["targets"][0].update(datasource={"type": "loki"}),
            "target-promql": set_expr("1 + 1"),
            "target-rate-interval": set_expr(f"rate(a_total{{{SEL}}}[5m])"),
            "target-job": set_expr('a{instance=~"$instance"}'),
            "target-instance": set_expr('a{job=~"$job",instance="$instance"}'),
            "target-counter-agg": set_expr(f"sum(a_total{{{SEL}}})"),
        }
        for rule, change in faults.items():
            with self.subTest(rule):
                self.assertIn(rule, rules_found(change))

    def test_a_counter_inside_another_function_is_found(self):
        self.assertIn("target-counter-agg", rules_found(set_expr(f"delta(a_total{{{SEL}}}[$__rate_interval])")))

    def test_expressions_that_do_not_parse_are_named(self):
        found = check.parses([("good", "sum(a)"), ("bad", "sum(a")])
        self.assertEqual(len(found), 1)
        self.assertIn("bad", found[0])


class Thresholds(unittest.TestCase):
    RULES = "groups:\n  - name: g\n    rules:\n" + "".join(f"      - alert: {name}\n        expr: {expr}\n" for name, expr in {
        "Above": "max (a) > 5", "Product": "a > 14.4 * 0.001 and b > 2", "Below": "a < 0.97", "Second": "(a > 0) and (b > 3)", "None": "a > 0"}.items())

    def test_the_first_number_that_is_not_zero_is_drawn(self):
        self.assertEqual(panels.threshold("Above", self.RULES), (5, True))
        self.assertAlmostEqual(panels.threshold("Product", self.RULES)[0], 0.0144)
        self.assertEqual(panels.threshold("Below", self.RULES), (0.97, False))
        self.assertEqual(panels.threshold("Second", self.RULES), (3, True))
        with self.assertRaises(ValueError):
            panels.threshold("None", self.RULES)

    def test_each_alert_with_a_bound_of_one_measured_value_is_drawn(self):
        drawn = {word.strip(".") for dashboard in DASHBOARDS.values() for panel in check.panels_of(dashboard) for word in panel.get("description", "").split()}
        for alert in ("FastBurn", "QueueLag", "DeliveryBacklog", "SoldOutSlow", "JournalSlow", "PaymentSuccessLow", "CertExpiring", "ScrapeSlow"):
            self.assertIn(f"Penstock{alert}", drawn)


class Selectors(unittest.TestCase):
    def test_names_ranges_and_functions_are_told_apart(self):
        found = check.selectors('histogram_quantile(0.9, sum by (le, x) (rate(b_bucket{y="by z"}[1m]))) > 1e3 and on (x) c offset 1h unless d:e:f')
        self.assertEqual([(name, window, call) for name, _, window, call in found],
                         [("b_bucket", "[1m]", "rate"), ("c", None, None), ("d:e:f", None, None)])
        self.assertEqual(found[0][1], [("y", "=", "by z")])


class Rules(unittest.TestCase):
    RULE = """groups:
  - name: g
    rules:
      - alert: A
        expr: a > 0
        labels: {severity: page}
        annotations:
          summary: "s"
          runbook_url: https://github.com/penstock/penstock/blob/main/docs/operating/runbooks.md#what-to-do
"""

    def found(self, rule, tests="alertname: A\n", runbook="## What to do\n"):
        return {finding.split(":")[0] for finding in check.check_rules(rule, tests, runbook)}

    def test_a_complete_alert_has_no_finding(self):
        self.assertEqual(self.found(self.RULE), set())

    def test_each_omission_is_found(self):
        self.assertEqual(self.found(self.RULE.replace("page", "loud")), {"alert-severity"})
        self.assertEqual(self.found(self.RULE.replace("summary", "s")), {"alert-summary"})
        self.assertEqual(self.found(self.RULE, runbook="## Something else\n"), {"alert-runbook"})
        self.assertEqual(self.found(self.RULE, tests=""), {"alert-test"})


class Metrics(unittest.TestCase):
    METRICS = check.parse_metrics('# TYPE a_total counter\na_total{outcome="ok",route="/"} 0\na_total{outcome="bad",route="/"} 0\nup_since 1.5\n')

    def found(self, expr, mentioned=()):
        return check.check_use([("here", expr, set(mentioned))], self.METRICS, {"r:a:rate1m"})

    def test_what_exists_is_accepted(self):
        for expr in ('sum by (route) (rate(a_total{outcome=~"ok|bad"}[1m]))', "up_since", "up == 0", "r:a:rate1m > 1", 'a_total{route="$route"}'):
            with self.subTest(expr):
                self.assertEqual(self.found(expr), [])

    def test_a_metric_a_label_and_a_value_that_do_not_exist_are_found(self):
        for expr in ("b_total", 'a_total{code="200"}', 'a_total{outcome=~"ok|gone"}', "sum by (code) (a_total)"):
            with self.subTest(expr):
                self.assertEqual(len(self.found(expr)), 1)

    def test_a_legend_of_a_label_that_does_not_exist_is_found(self):
        self.assertEqual(len(self.found("a_total", ["code"])), 1)


class Lists(unittest.TestCase):
    CODE = {"penstock_a_total", "penstock_b_seconds"}
    LISTED = {"penstock_a_total": {"outcome"}, "penstock_b_seconds": set()}
    USED = [("here", "rate(penstock_a_total[1m])", set()), ("there", "rate(penstock_b_seconds_bucket[1m]) + up + r:a", set())]
    PAGE = check.parse_metrics('penstock_a_total{outcome="ok"} 0\npenstock_b_seconds_bucket{le="1"} 0\npenstock_b_seconds_sum 0\n')

    def found(self, code=CODE, listed=LISTED, used=USED, page=PAGE):
        return {finding.split(":")[0] for finding in check.check_lists(code, listed, used, {"r:a"}, page)}

    def test_lists_that_agree_have_no_finding(self):
        self.assertEqual(self.found(), set())

    def test_each_difference_is_found(self):
        self.assertEqual(self.found(listed={"penstock_a_total": {"outcome"}}, page=None), {"metric-list"})
        self.assertEqual(self.found(listed={**self.LISTED, "penstock_c": set()}, page=None), {"metric-list"})
        self.assertEqual(self.found(used=[*self.USED, ("x", "penstock_c", set())]), {"metric-unknown"})
        self.assertEqual(self.found(used=self.USED[:1]), {"metric-unused"})
        self.assertEqual(self.found(page=check.parse_metrics('penstock_a_total{outcome="ok"} 0\n')), {"metric-silent"})
        self.assertEqual(self.found(listed={**self.LISTED, "penstock_a_total": {"reason"}}), {"metric-labels"})
        self.assertEqual(self.found(page={**self.PAGE, "penstock_d": {}}), {"metric-list"})

    def test_metrics_are_read_from_sources_without_their_tests(self):
        text = 'counter!("penstock_a_total");\n#[cfg(test)]\nmod tests {\n"penstock_no_total"\n}\n'
        files = [(pathlib.Path("x/src/a.rs"), text), (pathlib.Path("x/src/tests.rs"), '"penstock_no_total"'), (pathlib.Path("x/src/tests/b.rs"), '"penstock_no"')]
        self.assertEqual(check.metrics_of_code(files), {"penstock_a_total"})

    def test_the_list_is_read_with_its_labels_and_ends_with_its_section(self):
        text = "| `no` | | |\n## Metrics\n\n| metric | labels |\n|---|---|\n| `a_total` | `b`, `c` | x |\n| `d` | | x |\n\n## More\n\n| `e` | | |\n"
        self.assertEqual(check.metrics_of_list(text), {"a_total": {"b", "c"}, "d": set()})

    def test_the_help_is_the_last_column_as_plain_text(self):
        text = "| metric | labels | what |\n|---|---|---|\n| `a_total` | `b` | all `c` of [it](x.md): d, see [E](f.md) |\n"
        self.assertEqual(check.help_of_list(text), {"a_total": "All c of it: d"})
        self.assertEqual(check.check_help("# HELP a_total All c of it: d\n", check.help_of_list(text)), [])
        self.assertEqual(len(check.check_help("# HELP a_total Something else\n", check.help_of_list(text))), 1)
        self.assertEqual(len(check.check_help("a_total 1\n", check.help_of_list(text))), 1)


if __name__ == "__main__":
    unittest.main()
