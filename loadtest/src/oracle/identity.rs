//! Request ids: one order each, the same answer to every retry, no effect of other content, and none after a release.

use std::collections::HashMap;

use super::Allow;
use super::case::{Answer, Case, Key, Name, Op};
use super::rule::{Findings, Rule};
use super::stock::{gone_orders, seconds};
use crate::reconcile::OrderStatus;

/// Refusals that end a purchase for good. Others (paused, limited, unavailable) ask for another try and promise nothing.
const DEFINITE: [&str; 6] = [
    "sold_out",
    "buyer_limit",
    "not_started",
    "ended",
    "key_reused",
    "no_such_order",
];

pub(super) fn judge(case: &Case, allow: &Allow, found: &mut Findings) {
    let gone: std::collections::HashSet<u32> = match allow.is_lossy() {
        true => gone_orders(case).collect(),
        false => Default::default(),
    };
    for key in &case.keys {
        let orders: Vec<u32> = key
            .orders
            .iter()
            .copied()
            .filter(|o| !gone.contains(o))
            .collect();
        one_order(case, &orders, found);
        created_once(case, key, &gone, found);
        conflicts(case, key, found);
        if let [order] = orders[..] {
            replays(case, allow, key, order, found);
        }
    }
    tokens(case, &gone, found);
    attribution(case, found);
}

/// One order a request, whether the answers or the ledger name the second.
fn one_order(case: &Case, orders: &[u32], found: &mut Findings) {
    let [first, second, ..] = orders else {
        return;
    };
    let of = |at: &u32| &case.orders[*at as usize];
    let was_returned = orders.iter().map(of).any(|order| {
        order.returns_by < u64::MAX || order.ledger_status(case) == Some(OrderStatus::Released)
    });
    let rule = match was_returned {
        true => Rule::Resurrected,
        false => Rule::TwoOrders,
    };
    found.add(rule, orders.iter().map(|at| of(at).line(case)), || {
        format!(
            "one request of {} has the orders {} and {}",
            case.text(of(first).buyer),
            case.text(of(first).name),
            case.text(of(second).name)
        )
    });
}

/// 201 says "this request made it", and only one can have.
fn created_once(
    case: &Case,
    key: &Key,
    gone: &std::collections::HashSet<u32>,
    found: &mut Findings,
) {
    let mut created: HashMap<Name, u32> = HashMap::new();
    let lost = |order: Name| {
        gone.iter()
            .any(|at| case.orders[*at as usize].name == order)
    };
    for at in &key.purchases {
        let op = &case.ops[*at as usize];
        if !op.is_ok() || op.status != 201 {
            continue;
        }
        if let Some(first) = created.insert(op.order, op.done_line)
            && !lost(op.order)
        {
            found.add(Rule::CreatedTwice, [first, op.done_line], || {
                format!("{} was answered as new twice", case.text(op.order))
            });
        }
    }
}

/// Same key, other content: refused, and refused only then.
fn conflicts(case: &Case, key: &Key, found: &mut Findings) {
    let ops = || key.purchases.iter().map(|at| &case.ops[*at as usize]);
    let Some(first) = ops().next() else {
        return;
    };
    let has_conflict = ops().any(|op| op.lines != first.lines);
    if has_conflict {
        for order in &key.orders {
            let order = &case.orders[*order as usize];
            let others = ops().filter(|op| op.is_ok() && op.order == order.name);
            for op in others.filter(|op| op.lines != order.lines) {
                let lines = [op.line, op.done_line, order.line(case)];
                found.add(Rule::ConflictAnswered, lines, || {
                    format!(
                        "{} was made by other content and answered to this one at {}",
                        case.text(order.name),
                        seconds(op.end)
                    )
                });
            }
        }
    }
    for op in ops().filter(|op| op.answer == Answer::Fail && case.code(op) == "key_reused") {
        let is_explained = ops().any(|other| other.lines != op.lines && other.start <= op.end);
        if !is_explained {
            found.add(Rule::FalseConflict, op.both_lines(), || {
                format!(
                    "{} was told that its key was used for other content; it never was",
                    case.text(op.buyer)
                )
            });
        }
    }
}

/// Whoever retries an acknowledged request is not told a definite no.
fn replays(case: &Case, allow: &Allow, key: &Key, order: u32, found: &mut Findings) {
    let order = &case.orders[order as usize];
    let Some(ack) = order.acks.first().map(|at| &case.ops[*at as usize]) else {
        return;
    };
    let memory = case.faults.over_by(ack.end, allow.sold_out_lag_ms * 1000);
    let is_refused = |op: &&Op| {
        let code = case.code(op);
        // Another node may not have heard of the order yet when it answers "sold out" from memory.
        let is_late = code == "sold_out" && op.start <= memory && allow.sold_out_lag_ms > 0;
        op.answer == Answer::Fail && op.start > ack.end && DEFINITE.contains(&code) && !is_late
    };
    let asked = key.purchases.iter().map(|at| &case.ops[*at as usize]);
    for op in asked
        .filter(is_refused)
        .filter(|op| op.lines == order.lines)
    {
        let lines = [ack.done_line, op.line, op.done_line];
        found.add(Rule::ReplayRefused, lines, || {
            format!(
                "{} was acknowledged at {}, and its retry answered {} at {}",
                case.text(order.name),
                seconds(ack.end),
                case.code(op),
                seconds(op.end)
            )
        });
    }
    let polled = key.polls.iter().map(|at| &case.ops[*at as usize]);
    for op in polled.filter(is_refused) {
        let lines = [ack.done_line, op.line, op.done_line];
        found.add(Rule::Unseen, lines, || {
            format!(
                "{} was acknowledged at {}, and not found under its request id at {}",
                case.text(order.name),
                seconds(ack.end),
                seconds(op.end)
            )
        });
    }
}

/// One entitlement, one order.
fn tokens(case: &Case, gone: &std::collections::HashSet<u32>, found: &mut Findings) {
    let mut used: HashMap<(Name, Name), Vec<(Name, u32)>> = HashMap::new();
    for (at, order) in case.orders.iter().enumerate() {
        let acks = order.acks.iter().map(|op| &case.ops[*op as usize]);
        for op in acks.filter(|op| op.token != 0 && !gone.contains(&(at as u32))) {
            let orders = used.entry((op.sale, op.token)).or_default();
            if !orders.iter().any(|(known, _)| *known == op.order) {
                orders.push((op.order, op.done_line));
            }
        }
    }
    for ((_, token), orders) in used {
        if orders.len() > 1 {
            found.add(
                Rule::TokenReused,
                orders.iter().map(|(_, line)| *line),
                || {
                    format!(
                        "entitlement {} bought {} orders",
                        case.text(token),
                        orders.len()
                    )
                },
            );
        }
    }
}

/// Answers and rows agree on whose order it is, and of what.
fn attribution(case: &Case, found: &mut Findings) {
    for (at, key) in case.keys.iter().enumerate() {
        for order in &key.orders {
            let order = &case.orders[*order as usize];
            if order.key != Some(at as u32) {
                let lines = order.acks.iter().map(|op| case.ops[*op as usize].done_line);
                found.add(Rule::Misattributed, lines, || {
                    format!("{} was answered to two requests", case.text(order.name))
                });
            }
        }
    }
    for order in case.orders.iter().filter(|order| order.is_acknowledged()) {
        let ack = &case.ops[order.acks[0] as usize];
        for row in order.rows.iter().map(|row| &case.rows[*row as usize]) {
            let is_same = row.buyer == ack.buyer
                && row.request == ack.request
                && row.sale == ack.sale
                && order.units_of(row.sku) == row.quantity;
            if !is_same {
                found.add(
                    Rule::Misattributed,
                    [ack.line, ack.done_line, row.line],
                    || {
                        format!(
                            "{} was answered to {} for {}, and is recorded for {}: {} of {}",
                            case.text(order.name),
                            case.text(ack.buyer),
                            case.text(ack.request),
                            case.text(row.buyer),
                            row.quantity,
                            case.sku_text(row.sku)
                        )
                    },
                );
            }
        }
    }
}
