"""What dashboards are made of: queries, panels, and the dashboard around them. build.py says which there are.

A panel is one call with a title, a description, a unit and its queries. `SEL` stands in a query for the job and instance matchers that
every selector must carry; `check.py` holds the result against the lint rules and against a real /metrics.
"""

import pathlib
import re

import check

RULES = pathlib.Path(__file__).parent / "rules" / "penstock.rules.yml"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SEL = 'job=~"$job",instance=~"$instance"'
# One of the chosen sales, routes, upstreams.
SALE, ROUTE, UPSTREAM = 'sale=~"$sale"', 'route=~"$route"', 'upstream=~"$upstream"'

# Answers that spend the error budget. Limited, sold out and refused are correct answers and do not.
ERRORS = 'outcome=~"server_error|upstream_error|timeout|unavailable"'
ACCEPTED, SETTLED, SUCCEEDED, NOT_DECLINED = 'outcome="accepted"', 'outcome="settled"', 'outcome="succeeded"', 'outcome!="declined"'
DELIVERED = 'outcome="delivered"'
ANSWERED = 'outcome=~"ok|client_error|limited"'
ACTIVE, IN_USE = 'state="active"', 'state="in_use"'
OPEN, HALF_OPEN = 'state="open"', 'state="half_open"'
# One colour per meaning, everywhere.
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "#808080"
COLOURS = {
    "accepted": GREEN, "ok": GREEN, "settled": GREEN, "succeeded": GREEN, "delivered": GREEN, "allowed": GREEN,
    "replayed": BLUE, "duplicate": BLUE, "sold_out": GREY, "buyer_limit": GREY, "not_started": GREY, "ended": GREY,
    "limited": YELLOW, "declined": YELLOW, "retried": YELLOW, "held": YELLOW, "client_error": YELLOW, "aborted": YELLOW, "paused": YELLOW,
    "unknown": ORANGE, "unavailable": ORANGE, "timeout": ORANGE, "frozen": ORANGE, "refused": RED, "dead": RED, "error": RED,
    "not_admitted": GREY, "key_reused": YELLOW, "invalid": YELLOW, "not_found": YELLOW, "arrived": GREEN, "empty": GREY, "unfinished": RED,
    "changed": GREEN, "unchanged": BLUE, "left": GREY, "drained": YELLOW, "refused_buyer": ORANGE, "refused_node": RED,
    "failed": RED, "server_error": RED, "upstream_error": RED,
}
# In the order of a sale's life.
SALE_STATES = ("draft", "scheduled", "open", "paused", "ended")
# The closed label sets whose values are coloured, by the metric that carries them.
COLOURED = {
    "penstock_requests_total": "ok client_error limited unavailable upstream_error timeout server_error aborted",
    "penstock_ratelimit_decisions_total": "allowed limited",
    "penstock_tls_handshakes_total": "ok failed",
    "penstock_upstream_requests_total": "ok error timeout unavailable",
    "penstock_upstream_connects_total": "ok failed",
    "penstock_sale_purchases_total": "accepted replayed sold_out buyer_limit not_started ended paused frozen unknown not_admitted key_reused invalid not_found",
    "penstock_settlement_orders_total": "settled duplicate refused dead",
    "penstock_downstream_deliveries_total": "delivered retried held dead",
    "penstock_stock_transfers_total": "arrived empty unfinished",
    "penstock_order_waits_total": "changed unchanged left drained refused_buyer refused_node",
    "penstock_payment_attempts_total": "succeeded declined unknown error",
}


def rate(metric, matchers="", by="", fn="rate"):
    """sum by (…) (rate(metric{…}[$__rate_interval]))"""
    inner = f"{metric}{{{','.join(filter(None, [SEL, matchers]))}}}"
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} ({fn}({inner}[$__rate_interval]))"


def gauge(metric, matchers="", by="", agg="sum"):
    """agg by (…) (metric{…})"""
    inner = f"{metric}{{{','.join(filter(None, [SEL, matchers]))}}}"
    grouping = f" by ({by})" if by else ""
    return f"{agg}{grouping} ({inner})"


def quantile(q, metric, by="", matchers=""):
    return f"histogram_quantile({q}, {rate(metric + '_bucket', matchers, 'le' + (', ' + by if by else ''))})"


def quantiles(metric, by="", matchers=""):
    """p50, p99 and p99.9 as three queries; a class without traffic draws nothing."""
    label = f"{{{{{by}}}}} " if by else ""
    return [(quantile(q, metric, by, matchers), f"{label}{name}") for q, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))]


def stock(kind):
    """Units of the chosen sales. Nodes that share a store report the same gauge, so it is counted once per sku."""
    return f"sum (max by (sale, sku) (penstock_stock_{kind}_units{{{SEL},sale=~\"$sale\"}}))"


def stock_left():
    """Units that somebody can still buy: those of sales whose window is over do not count."""
    left, ended = f"max by (sale, sku) (penstock_stock_available_units{{{SEL},sale=~\"$sale\"}})", f"max by (sale) (penstock_sale_state{{{SEL},state=\"ended\"}}) == 1"
    return f"sum ({left} unless on (sale) ({ended}))"


class Board:
    """One dashboard: places panels left to right on Grafana's 24 columns, a row title above each group."""

    def __init__(self, uid, title, description, variables=()):
        self.uid, self.title, self.description, self.variables = uid, title, description, variables
        self.panels, self.x, self.y, self.row_height = [], 0, 0, 0

    def row(self, title):
        self._newline()
        self.panels.append({"type": "row", "id": self._id(), "title": title, "collapsed": False, "panels": [],
                            "gridPos": {"h": 1, "w": 24, "x": 0, "y": self.y}})
        self.y += 1

    def add(self, kind, title, description, unit, queries, *, w=8, h=8, options=None, defaults=None, overrides=None, fmt="time_series", instant=False):
        if self.x + w > 24:
            self._newline()
        targets = []
        for n, (expr, legend) in enumerate(queries):
            targets.append({"datasource": DATASOURCE, "refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend,
                            "format": fmt, "instant": instant, "range": not instant, "editorMode": "code"})
        self.panels.append({
            "type": kind, "id": self._id(), "title": title, "description": description, "datasource": DATASOURCE,
            "gridPos": {"h": h, "w": w, "x": self.x, "y": self.y}, "targets": targets, "options": options or {},
            "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": overrides or []},
        })
        self.x += w
        self.row_height = max(self.row_height, h)

    def stat(self, title, description, unit, expr, *, steps, mappings=None, decimals=None, calc="lastNotNull"):
        """One number; `steps` is [(from, colour)], the first one from minus infinity."""
        defaults = {"thresholds": {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in steps]}, "color": {"mode": "thresholds"},
                    "noValue": "no data", "mappings": mappings or []}
        if decimals is not None:
            defaults["decimals"] = decimals
        options = {"reduceOptions": {"calcs": [calc], "fields": "", "values": False}, "colorMode": "background", "graphMode": "area",
                   "textMode": "value", "justifyMode": "auto", "orientation": "auto"}
        self.add("stat", title, description, unit, [(expr, "")], w=3, h=5, options=options, defaults=defaults)

    def lines(self, title, description, unit, queries, *, w=8, h=8, stack=False, colours=True, log=False, alert=None, minimum=0):
        """Time series. Series named after an outcome take that outcome's colour; the threshold of an alert is drawn as a line."""
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 35 if stack else 6, "showPoints": "never", "spanNulls": False,
                  "stacking": {"mode": "normal" if stack else "none", "group": "A"},
                  "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"}}
        names = sorted({name for expr, _ in queries for metric, names in COLOURED.items() if metric in expr for name in names.split()}) if colours else []
        overrides = [{"matcher": {"id": "byRegexp", "options": f"/(^| ){name}$/"}, "properties": [
            {"id": "color", "value": {"mode": "fixed", "fixedColor": COLOURS[name]}}]} for name in names]
        options = {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
        defaults = {"custom": custom, "min": None if log else minimum}
        if alert:
            value, is_above = threshold(alert)
            custom["thresholdsStyle"] = {"mode": "dashed"}
            steps = [(None, "transparent"), (value, RED)] if is_above else [(None, RED), (value, "transparent")]
            defaults["thresholds"] = {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in steps]}
            description += f" The dashed line is the threshold of {alert}."
        self.add("timeseries", title, description, unit, queries, w=w, h=h, options=options, overrides=overrides, defaults=defaults)

    def heatmap(self, title, description, metric, *, w=8, matchers=""):
        options = {"calculate": False, "cellGap": 0, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
                   "yAxis": {"unit": "s", "axisPlacement": "left"}, "tooltip": {"show": True, "yHistogram": True}, "legend": {"show": True},
                   "rowsFrame": {"layout": "le"}, "filterValues": {"le": 1e-9}}
        self.add("heatmap", title, description, "s", [(rate(metric + "_bucket", matchers, "le"), "{{le}}")], w=w, options=options, fmt="heatmap")

    def timeline(self, title, description, expr, legend, values, *, w=8):
        mappings = [{"type": "value", "options": {str(v): {"text": text, "color": colour, "index": v} for v, (text, colour) in enumerate(values)}}]
        options = {"mergeValues": True, "showValue": "never", "alignValue": "left", "rowHeight": 0.9,
                   "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "single", "sort": "none"}}
        self.add("state-timeline", title, description, "short", [(expr, legend)], w=w, options=options,
                 defaults={"mappings": mappings, "custom": {"fillOpacity": 80, "lineWidth": 0}, "color": {"mode": "thresholds"}})

    def alerts(self, title, description, *, w=8, h=8):
        """What fires now, as Grafana hears it from Prometheus' rules."""
        options = {"viewMode": "list", "groupMode": "default", "groupBy": [], "maxItems": 20, "sortOrder": 3, "dashboardAlerts": False, "alertName": "Penstock",
                   "alertInstanceLabelFilter": "", "stateFilter": {"firing": True, "pending": True, "noData": False, "normal": False, "error": True}}
        if self.x + w > 24:
            self._newline()
        self.panels.append({"type": "alertlist", "id": self._id(), "title": title, "description": description, "options": options,
                            "gridPos": {"h": h, "w": w, "x": self.x, "y": self.y}})
        self.x += w
        self.row_height = max(self.row_height, h)

    def _id(self):
        return len(self.panels) + 1

    def _newline(self):
        self.x, self.y, self.row_height = 0, self.y + self.row_height, 0


def threshold(alert, rules=None):
    """(value, whether it fires above it) of the first comparison of an alert with a number other than 0."""
    expr = dict(check.rule_expressions(rules or RULES.read_text()))[alert]
    for sign, value, factor in re.findall(r"([<>]) (\d[\d.]*)(?: \* (\d[\d.]*))?", expr):
        number = float(value) * float(factor or 1)
        if number:
            return number, sign == ">"
    raise ValueError(f"{alert} has no threshold to draw")


def variable(name, query, label):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "query": query, "definition": query, "refresh": 2, "multi": True,
            "includeAll": True, "allValue": ".+", "sort": 1, "hide": 0, "regex": "", "skipUrlSync": False, "current": {"text": ["All"], "value": ["$__all"]}}


# What a dashboard can be narrowed to, besides job and instance.
VARIABLES = {
    "sale": variable("sale", 'label_values(penstock_stock_initial_units{job=~"$job"}, sale)', "Sale"),
    "route": variable("route", 'label_values(penstock_requests_total{job=~"$job"}, route)', "Route"),
    "upstream": variable("upstream", 'label_values(penstock_upstream_requests_total{job=~"$job"}, upstream)', "Upstream"),
}


def dashboard(b):
    """The JSON of one dashboard."""
    return {
        "title": b.title, "uid": b.uid, "description": b.description, "tags": ["penstock"], "editable": False,
        "schemaVersion": 39, "version": 1, "id": None, "timezone": "browser", "graphTooltip": 1, "refresh": "5s", "liveNow": False,
        "time": {"from": "now-15m", "to": "now"}, "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m"]},
        # From each dashboard to all others, at the same time and with the same choice of nodes and sales.
        "links": [{"type": "dashboards", "title": "Penstock", "tags": ["penstock"], "asDropdown": False, "includeVars": True, "keepTime": True,
                   "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "annotations": {"list": [{
            "name": "Alerts", "enable": True, "hide": False, "iconColor": RED, "datasource": DATASOURCE, "step": "5s", "titleFormat": "{{alertname}}",
            "expr": 'ALERTS{alertstate="firing",alertname!="PenstockWatchdog"}', "tagKeys": "severity", "textFormat": "{{upstream}} {{sale}} {{sku}}"}]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "multi": False,
             "includeAll": False, "regex": "", "skipUrlSync": False, "options": [], "current": {}},
            variable("job", "label_values(penstock_build_info, job)", "Job"),
            variable("instance", 'label_values(penstock_build_info{job=~"$job"}, instance)', "Instance"),
            *(VARIABLES[name] for name in b.variables),
        ]},
        "panels": b.panels,
    }
