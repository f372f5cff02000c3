//! The end: every acknowledged order is in the ledger, every order of the ledger was asked for, and the account adds up.

use std::collections::{HashMap, HashSet};

use super::case::{Answer, Case, Name, Row};
use super::rule::{Findings, Rule};
use super::stock::{gone_orders, seconds};
use super::{Allow, carts};
use crate::history::event::Action;
use crate::ledger::{OrderStatus, SaleReport};

/// Judges; answers how many acknowledged orders are lost within what the level allows.
pub(super) fn judge(case: &Case, allow: &Allow, found: &mut Findings) -> u64 {
    phantoms(case, found);
    carts::judge(case, allow, found);
    unresolved(case, found);
    for (sale, (line, report)) in &case.reports {
        let rows: Vec<&Row> = case.rows.iter().filter(|row| row.sale == *sale).collect();
        account(case, *sale, *line, report, &rows, found);
    }
    lost(case, allow, found)
}

/// INV-ORDER-3. At lower levels an order may be lost if a fault began soon after it was acknowledged.
fn lost(case: &Case, allow: &Allow, found: &mut Findings) -> u64 {
    let mut within_bound = 0;
    for at in gone_orders(case) {
        let order = &case.orders[at as usize];
        if allow.is_lossy()
            && case
                .faults
                .follows(order.takes_by, allow.loss_window_ms * 1000)
        {
            within_bound += 1;
            continue;
        }
        let row = order.rows.first().map(|row| case.rows[*row as usize].line);
        found.add(Rule::Lost, [order.line(case), row.unwrap_or(0)], || {
            let what = match row {
                Some(_) => "refused by",
                None => "not in",
            };
            format!(
                "{} was acknowledged at {} and is {what} the ledger",
                case.text(order.name),
                seconds(order.takes_by)
            )
        });
    }
    within_bound
}

/// INV-ORDER-2: a row of a buyer of ours whose request was refused each time, or never sent.
fn phantoms(case: &Case, found: &mut Findings) {
    let ours: HashSet<(Name, Name)> = case
        .ops
        .iter()
        .filter(|op| op.is_purchase())
        .map(|op| (op.sale, op.buyer))
        .collect();
    for order in case.orders.iter().filter(|order| !order.is_acknowledged()) {
        let Some(row) = order.rows.first().map(|row| &case.rows[*row as usize]) else {
            continue;
        };
        let Some(key) = order.key else {
            if ours.contains(&(row.sale, row.buyer)) {
                found.add(Rule::Phantom, [row.line], || {
                    format!(
                        "{} is in the ledger, and its request was never sent",
                        case.text(order.name)
                    )
                });
            }
            continue;
        };
        let sent = &case.keys[key as usize].purchases;
        let ops = || sent.iter().map(|at| &case.ops[*at as usize]);
        if !sent.is_empty() && ops().all(|op| op.answer == Answer::Fail) {
            let lines = ops().map(|op| op.done_line).chain([row.line]);
            found.add(Rule::Phantom, lines, || {
                format!(
                    "{} is in the ledger, and its request was refused ({})",
                    case.text(order.name),
                    ops().next().map_or("", |op| case.code(op))
                )
            });
        }
    }
}

/// After the faults a question about an unknown purchase has an answer, and it is what the ledger says.
fn unresolved(case: &Case, found: &mut Findings) {
    let Some(quiet) = case.quiet else {
        return;
    };
    for key in &case.keys {
        let polls = key.polls.iter().map(|at| &case.ops[*at as usize]);
        // A node may need a moment and another question; the last one must be answered.
        let Some(last) = polls
            .filter(|op| op.start >= quiet)
            .max_by_key(|op| op.start)
        else {
            continue;
        };
        let is_denied = last.answer == Answer::Fail && case.code(last) == "no_such_order";
        if !last.is_ok() && !is_denied {
            found.add(Rule::Unresolved, last.both_lines(), || {
                format!(
                    "the purchase of {} is still unknown after the faults: {} {}",
                    case.text(last.buyer),
                    last.status,
                    case.code(last)
                )
            });
        }
        let mut sent = key.purchases.iter().map(|at| &case.ops[*at as usize]);
        let was_sent_again = sent.any(|op| op.start > last.start);
        let orders = key.orders.iter().map(|order| &case.orders[*order as usize]);
        let mut asked = orders.filter(|order| order.is_asked_for_by(case, last));
        let row = asked.find_map(|order| order.rows.first().map(|row| &case.rows[*row as usize]));
        if let Some(row) = row.filter(|_| is_denied && !was_sent_again) {
            found.add(
                Rule::Unresolved,
                [last.line, last.done_line, row.line],
                || {
                    format!(
                        "{} was not found under its request id at {}, and is in the ledger",
                        case.text(row.order),
                        seconds(last.end)
                    )
                },
            );
        }
    }
}

/// INV-STOCK-2, and nothing left on its way.
fn account(
    case: &Case,
    sale: Name,
    line: u32,
    report: &SaleReport,
    rows: &[&Row],
    found: &mut Findings,
) {
    let name = case.text(sale);
    if report.unsettled() > 0 || report.queue_depth > 0 {
        found.add(Rule::Unsettled, [line], || {
            format!(
                "{name}: {} accepted, {} settled, {} set aside, {} queued",
                report.accepted, report.settled, report.dead_letters, report.queue_depth
            )
        });
    }
    let orders: HashSet<Name> = rows.iter().map(|row| row.order).collect();
    let with = |status: OrderStatus| {
        let of = rows.iter().filter(|row| row.status == status);
        of.map(|row| row.order).collect::<HashSet<Name>>().len() as u64
    };
    let counts = [
        ("settled", report.settled, orders.len() as u64),
        ("paid", report.paid, with(OrderStatus::Paid)),
        ("returned", report.returned, with(OrderStatus::Released)),
    ];
    for (what, told, counted) in counts {
        if told != counted {
            found.add(Rule::Counts, [line], || {
                format!("{name}: {told} {what}, but {counted} rows say so")
            });
        }
    }
    units(case, sale, line, report, rows, found);
}

fn units(
    case: &Case,
    sale: Name,
    line: u32,
    report: &SaleReport,
    rows: &[&Row],
    found: &mut Findings,
) {
    let document = case.sales.get(&sale);
    for sku in &report.skus {
        let of = |status: fn(OrderStatus) -> bool| -> u64 {
            let rows = rows.iter().filter(|row| {
                status(row.status) && case.text(case.skus[row.sku as usize].sku) == sku.sku
            });
            rows.map(|row| row.quantity).sum()
        };
        let total = sku.stock + sku.restocked;
        let live = of(OrderStatus::is_live);
        let paid = of(|status| status == OrderStatus::Paid);
        let planned = document
            .and_then(|document| document.skus.iter().find(|known| known.sku == sku.sku))
            .map_or(sku.stock, |known| known.stock);
        let restocked = restocked(case, sale, &sku.sku);
        let wrong = [
            (
                sku.available + sku.reserved + sku.sold != total,
                format!(
                    "{} available + {} reserved + {} sold of {total}",
                    sku.available, sku.reserved, sku.sold
                ),
            ),
            (
                sku.reserved + sku.sold != live,
                format!(
                    "{} reserved + {} sold, but live rows hold {live}",
                    sku.reserved, sku.sold
                ),
            ),
            (
                sku.sold != paid,
                format!("{} sold, but paid rows hold {paid}", sku.sold),
            ),
            (
                sku.ledger_sold.is_some_and(|sold| sold != live),
                format!(
                    "the ledger counts {:?}, its live rows hold {live}",
                    sku.ledger_sold
                ),
            ),
            (
                sku.stock != planned,
                format!("a stock of {}, the document says {planned}", sku.stock),
            ),
            (
                !(restocked.0..=restocked.1).contains(&sku.restocked),
                format!(
                    "{} restocked; {} were told done, {} sent",
                    sku.restocked, restocked.0, restocked.1
                ),
            ),
        ];
        for (_, what) in wrong.into_iter().filter(|(is_wrong, _)| *is_wrong) {
            found.add(Rule::Conservation, [line], || {
                format!("{}/{}: {what}", case.text(sale), sku.sku)
            });
        }
    }
}

/// Units that were surely, and at most, added by the restocks of this history.
fn restocked(case: &Case, sale: Name, sku: &str) -> (u64, u64) {
    let mut by_id: HashMap<Name, (u64, bool)> = HashMap::new();
    let restocks = case
        .ops
        .iter()
        .filter(|op| op.f == Action::Restock && op.sale == sale && op.may_have_happened());
    for op in restocks {
        for (at, units) in &op.lines {
            if case.text(case.skus[*at as usize].sku) == sku {
                let known = by_id.entry(op.request).or_insert((*units, false));
                known.1 |= op.is_ok();
            }
        }
    }
    let sum = |sure: bool| {
        let of = by_id.values().filter(|(_, ok)| *ok || !sure);
        of.map(|(units, _)| *units).sum()
    };
    (sum(true), sum(false))
}
