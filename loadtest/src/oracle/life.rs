//! The life of an order: a final status stays; a paid order is never returned; an unpaid one is returned in time.

use std::collections::HashSet;

use super::Allow;
use super::case::{Answer, Case, Op, Order};
use super::rule::{Findings, Rule};
use super::stock::{gone_orders, seconds};
use crate::history::event::Action;
use crate::ledger::OrderStatus;

/// Somebody saw where an order stands.
struct Sight {
    start: u64,
    end: u64,
    status: OrderStatus,
    line: u32,
}

pub(super) fn judge(case: &Case, allow: &Allow, found: &mut Findings) {
    let gone: HashSet<u32> = match allow.is_lossy() {
        true => gone_orders(case).collect(),
        false => HashSet::new(),
    };
    for (at, order) in case.orders.iter().enumerate() {
        let sights = sights(case, order);
        finals(case, order, &sights, found);
        backwards(case, order, &sights, found);
        // What was lost is found by nobody; whether it may be lost is another rule's matter.
        if !gone.contains(&(at as u32)) {
            unseen(case, order, found);
        }
        late_return(case, allow, order, &sights, found);
    }
}

fn status_in(op: &Op) -> Option<OrderStatus> {
    match op.f {
        _ if !op.is_ok() => None,
        Action::Cancel => Some(OrderStatus::Released),
        Action::Pay => Some(OrderStatus::Paid),
        _ => op.state,
    }
}

/// Every sight of an order, the ledger's row the last of them.
fn sights(case: &Case, order: &Order) -> Vec<Sight> {
    let lists = [&order.acks, &order.cancels, &order.pays, &order.polls];
    let ops = lists
        .into_iter()
        .flatten()
        .map(|at| &case.ops[*at as usize]);
    let told = ops.filter_map(|op| {
        Some(Sight {
            start: op.start,
            end: op.end,
            status: status_in(op)?,
            line: op.done_line,
        })
    });
    let rows = order.rows.iter().map(|row| &case.rows[*row as usize]);
    // The rows are read after everything else has ended.
    let rows = rows.map(|row| Sight {
        start: u64::MAX,
        end: u64::MAX,
        status: row.status,
        line: row.line,
    });
    told.chain(rows).collect()
}

/// Two final statuses of one order cannot both be true.
fn finals(case: &Case, order: &Order, sights: &[Sight], found: &mut Findings) {
    let mut finals: Vec<&Sight> = sights
        .iter()
        .filter(|sight| sight.status.is_final())
        .collect();
    finals.sort_by_key(|sight| sight.end);
    let Some(first) = finals.first() else {
        return;
    };
    let Some(other) = finals.iter().find(|sight| sight.status != first.status) else {
        return;
    };
    let both = [first.status, other.status];
    let is_paid_and_back =
        both.contains(&OrderStatus::Paid) && both.contains(&OrderStatus::Released);
    let rule = match is_paid_and_back {
        true => Rule::ReturnedAfterPaid,
        false => Rule::StatusBackwards,
    };
    found.add(rule, [first.line, other.line], || {
        format!(
            "{} is {} and {}",
            case.text(order.name),
            first.status.name(),
            other.status.name()
        )
    });
}

/// A question that is asked after a final status was answered gets the same status.
fn backwards(case: &Case, order: &Order, sights: &[Sight], found: &mut Findings) {
    let finals = sights.iter().filter(|sight| sight.status.is_final());
    let Some(first) = finals.min_by_key(|sight| sight.end) else {
        return;
    };
    let later = sights
        .iter()
        .filter(|sight| sight.start > first.end && !sight.status.is_final());
    for sight in later {
        found.add(Rule::StatusBackwards, [first.line, sight.line], || {
            format!(
                "{} was {} at {}, and {} to one who asked later",
                case.text(order.name),
                first.status.name(),
                seconds(first.end),
                sight.status.name()
            )
        });
    }
}

/// Its own buyer, who was told of it, finds it under its id.
fn unseen(case: &Case, order: &Order, found: &mut Findings) {
    let Some(ack) = order.acks.first().map(|at| &case.ops[*at as usize]) else {
        return;
    };
    let polls = order
        .polls
        .iter()
        .chain(&order.cancels)
        .map(|at| &case.ops[*at as usize]);
    for op in polls {
        let is_denied = op.answer == Answer::Fail && case.code(op) == "no_such_order";
        let is_own = op.buyer == order.buyer && order.is_asked_for_by(case, op);
        if is_denied && is_own && op.start > ack.end {
            let lines = [ack.done_line, op.line, op.done_line];
            found.add(Rule::Unseen, lines, || {
                format!(
                    "{} was acknowledged at {}, and its buyer did not find it at {}",
                    case.text(order.name),
                    seconds(ack.end),
                    seconds(op.end)
                )
            });
        }
    }
}

/// An order whose deadline is long over, with no fault in between, is not reserved any more.
fn late_return(case: &Case, allow: &Allow, order: &Order, sights: &[Sight], found: &mut Findings) {
    let Some(pay_by_ms) = order.pay_by_ms else {
        return;
    };
    let late_us = (allow.return_lag_ms + allow.skew_ms) * 1000;
    let due = case.faults.over_by(case.us_of(pay_by_ms), late_us);
    let ended = case.end.as_ref().map(|end| end.t_us);
    for sight in sights.iter().filter(|s| s.status == OrderStatus::Reserved) {
        // A row was read just before the last line was written.
        let asked = match sight.start {
            u64::MAX => ended,
            start => Some(start),
        };
        if asked.is_some_and(|asked| asked > due) {
            found.add(Rule::LateReturn, [order.line(case), sight.line], || {
                format!(
                    "{} was to be paid by {}, and is still reserved at {}",
                    case.text(order.name),
                    seconds(case.us_of(pay_by_ms)),
                    seconds(asked.unwrap_or(0))
                )
            });
            return;
        }
    }
}
