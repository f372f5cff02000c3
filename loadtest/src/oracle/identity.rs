//! Request ids: one order each, the same answer to every retry, no effect of other content, and none after a release.

use std::collections::HashMap;

use super::Allow;
use super::case::{Answer, Case, Key, Name, Op};
use super::rule::{Findings, Rule};
use super::stock::{gone_orders, seconds};
use crate::history::event::Action;
use crate::ledger::OrderStatus;

/// Refusals that end a purchase for good. Others (paused, limited, unavailable) ask for another try and promise nothing.
const DEFINITE: [&str; 8] = [
    "sold_out",
    "buyer_limit",
    "not_started",
    "ended",
    "key_reused",
    "token_used",
    "token_expired",
    "no_such_order",
];
/// Refusals of a retry that is excused for a moment: another node may not have heard of the order yet when it answers from memory.
const FROM_MEMORY: [&str; 2] = ["sold_out", "token_expired"];
/// What a key that was used for something else is answered with; an entitlement is the key of the purchase under it.
const CONFLICTS: [&str; 2] = ["key_reused", "token_used"];

pub(super) fn judge(case: &Case, allow: &Allow, found: &mut Findings) {
    let gone: std::collections::HashSet<u32> = match allow.is_lossy() {
        true => gone_orders(case).collect(),
        false => Default::default(),
    };
    let requests = requests(case);
    for key in &case.keys {
        let orders: Vec<u32> = key
            .orders
            .iter()
            .copied()
            .filter(|o| !gone.contains(o))
            .collect();
        one_order(case, &orders, found);
        created_once(case, key, &gone, found);
        conflict_answered(case, key, found);
        if let [order] = orders[..] {
            replays(case, allow, key, order, found);
        }
    }
    false_conflict(case, &requests, found);
    tokens(case, &gone, found);
    attribution(case, found);
}

/// The purchases under each request id of each buyer, of whatever skus.
fn requests(case: &Case) -> HashMap<(Name, Name, Name), Vec<&Op>> {
    let mut requests: HashMap<_, Vec<&Op>> = HashMap::new();
    // Only who was told of a conflict is looked for.
    for op in case.ops.iter().filter(|op| is_conflict(case, op)) {
        requests.entry((op.sale, op.buyer, op.request)).or_default();
    }
    for op in case.ops.iter().filter(|op| op.is_purchase()) {
        if let Some(ops) = requests.get_mut(&(op.sale, op.buyer, op.request)) {
            ops.push(op);
        }
    }
    requests
}

fn is_conflict(case: &Case, op: &Op) -> bool {
    let is_refused = op.is_purchase() && op.answer == Answer::Fail;
    is_refused && op.is_first && CONFLICTS.contains(&case.code(op))
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

/// Same key, other content: refused.
fn conflict_answered(case: &Case, key: &Key, found: &mut Findings) {
    for order in &key.orders {
        let order = &case.orders[*order as usize];
        let Some(origin) = order.origin.map(|at| &case.ops[at as usize]) else {
            continue;
        };
        let ops = key.purchases.iter().map(|at| &case.ops[*at as usize]);
        let answered = ops.filter(|op| op.is_ok() && op.order == order.name);
        for op in answered.filter(|op| !op.asks_the_same(origin)) {
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

/// … and refused only then: a cart shares its key with whatever else was bought under it, single purchases only with those of
/// their sku.
fn false_conflict(
    case: &Case,
    requests: &HashMap<(Name, Name, Name), Vec<&Op>>,
    found: &mut Findings,
) {
    for op in case.ops.iter().filter(|op| is_conflict(case, op)) {
        let is_rival = |other: &Op| {
            let is_one = op.f == Action::Buy && other.f == Action::Buy;
            let skus = |op: &Op| op.lines.first().map(|(sku, _)| *sku);
            let is_about_it = !is_one || skus(op) == skus(other);
            is_about_it && !op.asks_the_same(other) && other.start <= op.end
        };
        let sent = &requests[&(op.sale, op.buyer, op.request)];
        if !sent.iter().any(|other| is_rival(other)) {
            found.add(Rule::FalseConflict, op.both_lines(), || {
                format!(
                    "{} was told that its key was used for other content; it never was",
                    case.text(op.buyer)
                )
            });
        }
    }
}

/// A retry of an acknowledged request is not refused for good.
fn replays(case: &Case, allow: &Allow, key: &Key, order: u32, found: &mut Findings) {
    let order = &case.orders[order as usize];
    let Some(ack) = order.acks.first().map(|at| &case.ops[*at as usize]) else {
        return;
    };
    let memory = case.faults.over_by(ack.end, allow.sold_out_lag_ms * 1000);
    let is_refused = |op: &&Op| {
        let code = case.code(op);
        let is_late =
            FROM_MEMORY.contains(&code) && op.start <= memory && allow.sold_out_lag_ms > 0;
        op.answer == Answer::Fail && op.start > ack.end && DEFINITE.contains(&code) && !is_late
    };
    let asked = key.purchases.iter().map(|at| &case.ops[*at as usize]);
    let origin = order.origin.map(|at| &case.ops[at as usize]);
    let is_the_same = |op: &&Op| origin.is_some_and(|origin| op.asks_the_same(origin));
    for op in asked.filter(is_refused).filter(is_the_same) {
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
    for op in polled
        .filter(is_refused)
        .filter(|op| order.is_asked_for_by(case, op))
    {
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

/// One entitlement, one order; of a cart, one a sku.
fn tokens(case: &Case, gone: &std::collections::HashSet<u32>, found: &mut Findings) {
    let mut used: HashMap<(Name, Name), Vec<&Op>> = HashMap::new();
    for (at, order) in case.orders.iter().enumerate() {
        let acks = order.acks.iter().map(|op| &case.ops[*op as usize]);
        for op in acks.filter(|op| op.token != 0 && !gone.contains(&(at as u32))) {
            let orders = used.entry((op.sale, op.token)).or_default();
            if !orders.iter().any(|known| known.order == op.order) {
                orders.push(op);
            }
        }
    }
    for ((_, token), orders) in used {
        let sku = |op: &Op| op.lines.first().map(|(sku, _)| *sku);
        let is_other = |op: &Op, first: &Op| {
            op.request != first.request || op.buyer != first.buyer || sku(op) == sku(first)
        };
        let is_reused = orders.iter().enumerate().any(|(at, op)| {
            let before = &orders[..at];
            before.iter().any(|first| is_other(op, first))
        });
        if is_reused {
            found.add(
                Rule::TokenReused,
                orders.iter().map(|op| op.done_line),
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
