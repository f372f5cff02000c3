//! The report as one HTML page without any outside reference: styles inline, charts as SVG.

use std::fmt::Write;

use super::render::ms;
use super::{Latency, Report};

const TEMPLATE: &str = include_str!("report.html");
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 260.0;
/// Room for the labels of the axes.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 24.0;

/// The report as a page.
pub fn html(r: &Report) -> String {
    let s = &r.scenario;
    let class = if r.exit_code == 0 { "good" } else { "bad" };
    let verdict = format!(
        "{}, exit code {}",
        serde_json::to_value(r.verdict)
            .ok()
            .and_then(|value| value.as_str().map(|text| text.replace('_', " ")))
            .unwrap_or_default(),
        r.exit_code
    );
    let subtitle = format!(
        "{}, {} connections, {} threads, {} buyers, {} bots, seed {}; planned {}, requests {}, completed {}, wall {:.2} s, rate ratio {:.3}",
        s.protocol,
        s.connections,
        s.threads,
        s.buyers,
        s.bots,
        s.seed,
        r.planned,
        r.requests,
        r.completed,
        r.wall_s,
        r.rate_ratio
    );
    let fields = [
        ("title", escape(&format!("{} on {}", s.profile, s.target))),
        ("subtitle", escape(&subtitle)),
        ("verdict_class", class.to_owned()),
        ("verdict", escape(&verdict)),
        ("findings", findings(r)),
        ("outcomes", outcomes(r)),
        ("latency_chart", latency_chart(r)),
        ("throughput_chart", throughput_chart(r)),
        ("ledger", ledger(r)),
        ("thresholds", thresholds(r)),
        ("generator", generator(r)),
        ("notes", list("Notes", &r.notes)),
    ];
    fill(TEMPLATE, &fields)
}

/// Replaces `{{name}}` once, from left to right, so that a value is never read as a template.
fn fill(template: &str, fields: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(template.len() * 4);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        if let Some((_, value)) = fields.iter().find(|(field, _)| *field == name) {
            out.push_str(value);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn row(out: &mut String, tag: &str, cells: &[String]) {
    out.push_str("<tr>");
    for cell in cells {
        let _ = write!(out, "<{tag}>{}</{tag}>", escape(cell));
    }
    out.push_str("</tr>");
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<table>");
    row(
        &mut out,
        "th",
        &head.iter().map(ToString::to_string).collect::<Vec<_>>(),
    );
    for cells in rows {
        row(&mut out, "td", cells);
    }
    out.push_str("</table>");
    out
}

fn list(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut out = format!("<h2>{title}</h2><ul>");
    for item in items {
        let _ = write!(out, "<li>{}</li>", escape(item));
    }
    out.push_str("</ul>");
    out
}

fn findings(r: &Report) -> String {
    let found = r.reconciliation.iter().flat_map(|l| &l.findings);
    let lines: Vec<String> = found
        .map(|f| format!("{} ({}): {}", f.rule, f.invariant, f.detail))
        .collect();
    list("Broken invariants", &lines)
}

fn latency_cells(l: &Latency) -> Vec<String> {
    [l.p50_ms, l.p90_ms, l.p99_ms, l.p999_ms, l.max_ms]
        .into_iter()
        .map(ms)
        .collect()
}

fn outcomes(r: &Report) -> String {
    let rows: Vec<Vec<String>> = r
        .outcomes
        .iter()
        .map(|one| {
            let mut cells = vec![one.outcome.name().replace('_', " "), one.count.to_string()];
            cells.extend(latency_cells(&one.latency));
            cells.push(ms(one.latency_uncorrected.p99_ms));
            cells
        })
        .collect();
    table(
        &[
            "outcome",
            "count",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "p99 as sent",
        ],
        &rows,
    )
}

fn ledger(r: &Report) -> String {
    let h = &r.history;
    let mut rows = vec![
        ("purchases sent", h.purchases),
        ("acknowledged", h.acknowledged),
        ("refused", h.refused),
        ("without a definite answer", h.ambiguous),
        ("repeated on purpose", h.repeated),
    ];
    if let Some(l) = &r.reconciliation {
        rows.extend([
            ("stock and restocks", l.stock + l.restocked),
            ("accepted by the store", l.accepted),
            ("settled in the ledger", l.settled),
            ("paid", l.paid),
            ("returned", l.returned),
            ("oversold units", l.oversold),
            ("duplicated", l.duplicated),
            ("lost", l.lost),
            ("phantom", l.phantom),
            ("misattributed", l.misattributed),
            ("partial carts", l.partial_carts),
            ("paid mismatch", l.paid_mismatch),
            ("buyers over their limit", l.over_limit),
        ]);
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, count)| vec![name.to_owned(), count.to_string()])
        .collect();
    table(&["figure", "count"], &rows)
}

fn thresholds(r: &Report) -> String {
    let rows: Vec<Vec<String>> = r
        .thresholds
        .iter()
        .map(|one| {
            vec![
                one.name.clone(),
                one.limit.to_string(),
                one.actual
                    .map_or("never occurred".into(), |a| format!("{a:.4}")),
                if one.held { "held" } else { "MISSED" }.into(),
            ]
        })
        .collect();
    table(&["threshold", "limit", "actual", ""], &rows)
}

fn generator(r: &Report) -> String {
    let mut rows = vec![
        [
            vec!["schedule lag".to_owned()],
            latency_cells(&r.schedule_lag),
        ]
        .concat(),
        [
            vec!["wait for a connection".to_owned()],
            latency_cells(&r.connection_wait),
        ]
        .concat(),
    ];
    if let (Some(cpu), Some(each)) = (r.generator.cpu_s, r.generator.cpu_us_per_request) {
        rows.push(vec![
            "CPU seconds; per request".into(),
            format!("{cpu:.2}"),
            format!("{each:.1} us"),
        ]);
    }
    table(&["", "p50", "p90", "p99", "p99.9", "max"], &rows)
}

/// Horizontal bars: the 99th percentile from the planned instant, and as sent.
fn latency_chart(r: &Report) -> String {
    let height = r.outcomes.len() as f64 * 34.0 + BOTTOM;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"latency by outcome\">"
    );
    let left = 130.0;
    let largest = r
        .outcomes
        .iter()
        .map(|one| one.latency.p99_ms)
        .fold(1.0, f64::max);
    // From 0.1 ms, below which nobody feels a difference, to the largest.
    let scale = |value: f64| {
        let share = (value.max(0.1) / 0.1).log10() / (largest / 0.1).log10().max(1e-9);
        share * (WIDTH - left - 110.0)
    };
    for (at, one) in r.outcomes.iter().enumerate() {
        let y = at as f64 * 34.0;
        let (planned, sent) = (one.latency.p99_ms, one.latency_uncorrected.p99_ms);
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{:.0}\">{}</text><rect class=\"bar\" x=\"{left}\" y=\"{:.0}\" width=\"{:.1}\" height=\"13\"/><rect class=\"bar2\" x=\"{left}\" y=\"{:.0}\" width=\"{:.1}\" height=\"9\"/><text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            y + 17.0,
            one.outcome.name().replace('_', " "),
            y + 4.0,
            scale(planned),
            y + 18.0,
            scale(sent),
            left + scale(planned) + 6.0,
            y + 15.0,
            ms(planned),
        );
    }
    let _ = write!(
        out,
        "<text x=\"{left}\" y=\"{:.0}\">upper bar: from the planned instant; lower bar: as sent</text></svg>",
        height - 8.0
    );
    out
}

/// Lines: planned, ended and errors per second.
fn throughput_chart(r: &Report) -> String {
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"throughput over time\">"
    );
    let top = r
        .timeline
        .iter()
        .map(|p| p.planned_per_s.max(p.done_per_s))
        .fold(1.0, f64::max);
    let end = r.timeline.last().map_or(1.0, |p| p.at_s).max(0.5);
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - 10.0);
    let y = |value: f64| (HEIGHT - BOTTOM) * (1.0 - value / top * 0.95);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let value = top * share;
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text x=\"0\" y=\"{1:.1}\">{value:.0}/s</text><text x=\"{2:.1}\" y=\"{HEIGHT}\" text-anchor=\"end\">{3:.1}s</text>",
            y(value),
            y(value) + 4.0,
            x(end * share).max(LEFT + 30.0),
            end * share,
        );
    }
    for (class, values) in [
        ("b", r.timeline.iter().map(|p| p.planned_per_s).collect()),
        ("a", r.timeline.iter().map(|p| p.done_per_s).collect()),
        (
            "e",
            r.timeline
                .iter()
                .map(|p| p.errors_per_s)
                .collect::<Vec<_>>(),
        ),
    ] {
        let _ = write!(out, "<polyline class=\"{class}\" points=\"");
        for (point, value) in r.timeline.iter().zip(values) {
            let _ = write!(out, "{:.1},{:.1} ", x(point.at_s), y(value));
        }
        out.push_str("\"/>");
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_looks_like_a_template_stays_text() {
        let fields = [("a", "{{b}}".to_owned()), ("b", "no".to_owned())];
        assert_eq!(fill("x {{a}} y {{b}}", &fields), "x {{b}} y no");
    }

    #[test]
    fn markup_in_values_is_escaped() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
