//! INV-WINDOW-1: nothing is sold outside the window or behind a shut gate, and nobody is sent away without a reason.

use super::Allow;
use super::case::{Answer, Case, Name, Op};
use super::rule::{Findings, Rule};
use super::stock::seconds;
use crate::history::event::Action;

/// When a sale surely was shut, and when it may have been.
#[derive(Default)]
struct Shut {
    /// From, until, and the line of the operation that shut it.
    surely: Vec<(u64, u64, u32)>,
    possibly: Vec<(u64, u64)>,
    /// A close may have taken effect from here on.
    closed_from: Option<u64>,
}

pub(super) fn judge(case: &Case, allow: &Allow, found: &mut Findings) {
    let mut sales: Vec<Name> = case.ops.iter().map(|op| op.sale).collect();
    sales.extend(case.rows.iter().map(|row| row.sale));
    sales.sort_unstable();
    sales.dedup();
    for sale in sales {
        let shut = shut(case, sale);
        window(case, allow, sale, found);
        gate_shut(case, sale, &shut, found);
        false_gate(case, allow, sale, &shut, found);
    }
}

/// The operators' doings, as intervals. There are few of them.
fn shut(case: &Case, sale: Name) -> Shut {
    let of = |wanted: [Action; 2]| {
        case.ops
            .iter()
            .filter(move |op| op.sale == sale && wanted.contains(&op.f) && op.may_have_happened())
    };
    let mut shut = Shut::default();
    for (close, open) in [
        (Action::Pause, Action::Resume),
        (Action::Freeze, Action::Thaw),
    ] {
        for closing in of([close, close]) {
            let opened_from = of([open, open])
                .filter(|opening| opening.end > closing.start)
                .map(|opening| opening.start);
            let opened_by = of([open, open])
                .filter(|opening| opening.is_ok() && opening.start > closing.end)
                .map(|opening| opening.end);
            let until = opened_from.min().unwrap_or(u64::MAX);
            if closing.is_ok() && closing.end < until {
                shut.surely.push((closing.end, until, closing.done_line));
            }
            let until = opened_by.min().unwrap_or(u64::MAX);
            shut.possibly.push((closing.start, until));
        }
    }
    for closing in of([Action::Close, Action::Close]) {
        if closing.is_ok() {
            shut.surely.push((closing.end, u64::MAX, closing.done_line));
        }
        let earliest = shut.closed_from.unwrap_or(u64::MAX);
        shut.closed_from = Some(earliest.min(closing.start));
    }
    shut
}

/// By the clients' clocks, with an allowance, and exactly by the store's own.
fn window(case: &Case, allow: &Allow, sale: Name, found: &mut Findings) {
    let Some(facts) = case.sales.get(&sale) else {
        return;
    };
    let (starts, ends) = (facts.starts_at_ms, facts.ends_at_ms);
    for order in case
        .orders
        .iter()
        .filter(|o| o.sale == sale && o.is_acknowledged())
    {
        let is_early = order.takes_by_ms.saturating_add(allow.skew_ms) < starts;
        let is_late = order.takes_from_ms.saturating_sub(allow.skew_ms) >= ends;
        if is_early || is_late {
            found.add(Rule::Window, [order.line(case)], || {
                format!(
                    "{} was sold between {} and {}; the window is {starts}..{ends} (unix milliseconds)",
                    case.text(order.name),
                    order.takes_from_ms,
                    order.takes_by_ms
                )
            });
        }
    }
    for row in case.rows.iter().filter(|row| row.sale == sale) {
        let Some(created) = row.created_at_ms else {
            continue;
        };
        if !(starts..ends).contains(&created) {
            found.add(Rule::Window, [row.line], || {
                format!(
                    "{} was accepted at {created} by the store's clock; the window is {starts}..{ends}",
                    case.text(row.order)
                )
            });
        }
    }
}

/// An order whose whole interval lies behind a shut gate.
fn gate_shut(case: &Case, sale: Name, shut: &Shut, found: &mut Findings) {
    if shut.surely.is_empty() {
        return;
    }
    for order in case
        .orders
        .iter()
        .filter(|o| o.sale == sale && o.is_acknowledged())
    {
        let gate = shut
            .surely
            .iter()
            .find(|(from, until, _)| order.takes_from >= *from && order.takes_by <= *until);
        if let Some((from, _, line)) = gate {
            found.add(Rule::GateShut, [*line, order.line(case)], || {
                format!(
                    "{} was sold between {} and {}; the gate was shut since {}",
                    case.text(order.name),
                    seconds(order.takes_from),
                    seconds(order.takes_by),
                    seconds(*from)
                )
            });
        }
    }
}

/// "Not started", "ended" and "paused" have a reason in the sale's document or in what operators did.
fn false_gate(case: &Case, allow: &Allow, sale: Name, shut: &Shut, found: &mut Findings) {
    let Some(facts) = case.sales.get(&sale) else {
        return;
    };
    let is_refused =
        |op: &&Op| op.sale == sale && op.is_purchase() && op.is_first && op.answer == Answer::Fail;
    for op in case.ops.iter().filter(is_refused) {
        let since = case.faults.since(op.start, allow.sold_out_lag_ms * 1000);
        let is_closed = shut.closed_from.is_some_and(|from| from <= op.end);
        let is_explained = match case.code(op) {
            "not_started" => op.start_ms.saturating_sub(allow.skew_ms) < facts.starts_at_ms,
            "ended" => op.end_ms.saturating_add(allow.skew_ms) >= facts.ends_at_ms || is_closed,
            "paused" => {
                let mut may_be = shut.possibly.iter();
                is_closed || may_be.any(|(from, until)| *from <= op.end && *until >= since)
            }
            _ => true,
        };
        if !is_explained {
            found.add(Rule::FalseGate, op.both_lines(), || {
                format!(
                    "{} was answered between {} and {} (unix milliseconds) without a reason",
                    case.code(op),
                    op.start_ms,
                    op.end_ms
                )
            });
        }
    }
}
