//! The report as text for a terminal, as JSON, and as an HTML page.

use std::fmt::Write;

pub use super::html::html;
use super::{Latency, Report, Verdict};
use crate::outcome::Outcome;
use crate::record::Progress;

/// Escape sequences, or nothing.
struct Paint {
    good: &'static str,
    bad: &'static str,
    dim: &'static str,
    bold: &'static str,
    off: &'static str,
}

impl Paint {
    fn new(color: bool) -> Paint {
        if color {
            Paint {
                good: "\x1b[32m",
                bad: "\x1b[31m",
                dim: "\x1b[2m",
                bold: "\x1b[1m",
                off: "\x1b[0m",
            }
        } else {
            Paint {
                good: "",
                bad: "",
                dim: "",
                bold: "",
                off: "",
            }
        }
    }

    fn judged(&self, good: bool) -> &'static str {
        if good { self.good } else { self.bad }
    }
}

/// The report as one JSON document.
pub fn json(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report)
        .expect("a report holds only strings, numbers and lists");
    text.push('\n');
    text
}

/// One line on the run so far.
pub fn progress_line(progress: &Progress) -> String {
    let count = |outcome: Outcome| progress.count(outcome);
    let errors: u64 = Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_error())
        .map(count)
        .sum();
    // Within 79 columns for a million buyers: a line that wraps cannot be drawn in place.
    format!(
        "{:.0}/{:.0}s {:.0}/s p99 {} | accepted {} sold out {} paid {} errors {}",
        progress.elapsed.as_secs_f64(),
        progress.length.as_secs_f64(),
        progress.rps,
        ms(progress.p99.as_secs_f64() * 1e3),
        count(Outcome::Accepted),
        count(Outcome::SoldOut),
        count(Outcome::Paid),
        errors,
    )
}

/// The whole report as a text table.
pub fn text(report: &Report, color: bool) -> String {
    let paint = Paint::new(color);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, report, &paint);
    out
}

fn write_text(out: &mut String, r: &Report, paint: &Paint) -> std::fmt::Result {
    let s = &r.scenario;
    let Paint { bold, dim, off, .. } = paint;
    writeln!(
        out,
        "{bold}{} on {}{off}\n{dim}{}, {} connections, {} buyers, {} bots, seed {}{off}",
        s.profile, s.target, s.protocol, s.connections, s.buyers, s.bots, s.seed
    )?;
    writeln!(
        out,
        "planned {}  requests {}  completed {}  wall {:.2} s\nrate {:.0}/s of {:.0}/s (ratio {:.3})",
        r.planned, r.requests, r.completed, r.wall_s, r.achieved_rate, r.target_rate, r.rate_ratio
    )?;
    write_outcomes(out, r, paint)?;
    write_costs(out, r)?;
    write_ledger(out, r, paint)?;
    write_judgement(out, r, paint)
}

fn write_outcomes(out: &mut String, r: &Report, paint: &Paint) -> std::fmt::Result {
    let Paint { bold, dim, off, .. } = paint;
    writeln!(
        out,
        "\n{bold}{:<13}{:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}{off}",
        "outcome", "count", "p50", "p90", "p99", "p99.9", "max", "as sent"
    )?;
    for one in &r.outcomes {
        let color = match one.outcome {
            outcome if outcome.is_error() => paint.bad,
            Outcome::Accepted | Outcome::Paid => paint.good,
            _ => "",
        };
        write!(
            out,
            "{color}{:<13}{off}{:>8} ",
            one.outcome.name(),
            one.count
        )?;
        write_latency(out, &one.latency)?;
        writeln!(out, " {:>8}", ms(one.latency_uncorrected.p99_ms))?;
    }
    write!(out, "{:<13}{:>8} ", "all", "")?;
    write_latency(out, &r.latency)?;
    writeln!(out, " {:>8}", ms(r.latency_uncorrected.p99_ms))?;
    write!(out, "{dim}{:<13}{:>8} ", "schedule lag", "")?;
    write_latency(out, &r.schedule_lag)?;
    writeln!(out, "{off}")?;
    write!(out, "{dim}{:<13}{:>8} ", "conn. wait", "")?;
    write_latency(out, &r.connection_wait)?;
    writeln!(out, "{off}")?;
    writeln!(
        out,
        "{dim}Latency counts from the planned instant. \"as sent\" is the p99 from the actual\nsend: it hides every wait before it.{off}"
    )?;
    write!(out, "answers:")?;
    for one in &r.statuses {
        match one.status {
            0 => write!(out, "  none {}", one.count)?,
            status => write!(out, "  {status} {}", one.count)?,
        }
    }
    writeln!(out)
}

/// Connections, the generator's own time, and what was asked or sent again.
fn write_costs(out: &mut String, r: &Report) -> std::fmt::Result {
    let c = &r.connections;
    write!(
        out,
        "\nconnections: {} opened, {} replaced, {} failed\nrequests sent again because their connection broke: {}",
        c.opened, c.reconnects, c.failed, c.resends
    )?;
    if let (Some(cpu), Some(each)) = (r.generator.cpu_s, r.generator.cpu_us_per_request) {
        write!(out, "\ngenerator: {cpu:.2} CPU s, {each:.1} us a request")?;
    }
    writeln!(out)?;
    if r.polls.sent > 0 || r.polls.pay_retries > 0 {
        writeln!(
            out,
            "unknown answers: {} polls settled {}; payments tried again: {}",
            r.polls.sent, r.polls.settled, r.polls.pay_retries
        )?;
    }
    Ok(())
}

fn write_ledger(out: &mut String, r: &Report, paint: &Paint) -> std::fmt::Result {
    let off = paint.off;
    let Some(l) = &r.reconciliation else {
        return Ok(());
    };
    writeln!(
        out,
        "\n{}ledger{off}: stock {} + {} restocked\naccepted {}  settled {}  paid {}  returned {}  refused {}  dead letters {}",
        paint.bold,
        l.stock,
        l.restocked,
        l.accepted,
        l.settled,
        l.paid,
        l.returned,
        l.refused,
        l.dead_letters
    )?;
    writeln!(
        out,
        "client: {} purchases, {} acknowledged, {} refused,\n{} without a definite answer, {} repeated on purpose",
        r.history.purchases,
        r.history.acknowledged,
        r.history.refused,
        r.history.ambiguous,
        r.history.repeated
    )?;
    let figures = [
        ("oversold", l.oversold),
        ("duplicated", l.duplicated),
        ("lost", l.lost),
        ("phantom", l.phantom),
        ("misattributed", l.misattributed),
        ("partial carts", l.partial_carts),
        ("paid mismatch", l.paid_mismatch),
        ("over limit", l.over_limit),
    ];
    for (at, (name, count)) in figures.into_iter().enumerate() {
        let color = paint.judged(count == 0);
        let end = if at % 4 == 3 { "\n" } else { "  " };
        write!(out, "{color}{name} {count}{off}{end}")?;
    }
    for finding in &l.findings {
        writeln!(
            out,
            "{}BROKEN {}{off} ({}): {}",
            paint.bad, finding.rule, finding.invariant, finding.detail
        )?;
    }
    Ok(())
}

fn write_judgement(out: &mut String, r: &Report, paint: &Paint) -> std::fmt::Result {
    let off = paint.off;
    for one in &r.thresholds {
        let actual = one
            .actual
            .map_or("never occurred".into(), |actual| format!("{actual:.4}"));
        let color = paint.judged(one.held);
        let word = if one.held { "held" } else { "MISSED" };
        writeln!(
            out,
            "{color}{word}{off} {}: {actual} (limit {})",
            one.name, one.limit
        )?;
    }
    for note in &r.notes {
        writeln!(out, "note: {note}")?;
    }
    let verdict = match r.verdict {
        Verdict::Valid => "valid: the plan was kept",
        Verdict::GeneratorBound => "not valid: the generator was late, its latencies are its own",
        Verdict::ServerBound => "server bound: requests waited for connections or were shed",
        Verdict::Interrupted => "interrupted: a partial report",
    };
    let color = paint.judged(r.exit_code == 0);
    writeln!(out, "{color}verdict: {verdict}; exit {}{off}", r.exit_code)
}

fn write_latency(out: &mut String, l: &Latency) -> std::fmt::Result {
    write!(
        out,
        "{:>8} {:>8} {:>8} {:>8} {:>8}",
        ms(l.p50_ms),
        ms(l.p90_ms),
        ms(l.p99_ms),
        ms(l.p999_ms),
        ms(l.max_ms)
    )
}

/// Milliseconds with a unit that keeps three digits in sight.
pub(super) fn ms(value: f64) -> String {
    if value >= 1000.0 {
        format!("{:.2}s", value / 1000.0)
    } else if value >= 10.0 {
        format!("{value:.1}ms")
    } else {
        format!("{value:.2}ms")
    }
}
