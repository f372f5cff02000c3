//! INV-ORDER-2 for carts: all lines or none. A cart is an order a line, which are taken together; afterwards each is paid, cancelled
//! and returned for itself, and all of them together if the cart is given back as one.

use std::collections::{HashMap, HashSet};

use super::Allow;
use super::case::{Case, Name, Op, Order, Row, SkuAt};
use super::rule::{Findings, Rule};
use crate::history::event::Action;
use crate::ledger::OrderStatus;

/// Sale, buyer and request id.
type Request = (Name, Name, Name);

pub(super) fn judge(case: &Case, allow: &Allow, found: &mut Findings) {
    let mut sent: HashMap<Request, Vec<&Op>> = HashMap::new();
    for op in case.ops.iter().filter(|op| op.f == Action::CartBuy) {
        let request = (op.sale, op.buyer, op.request);
        sent.entry(request).or_default().push(op);
    }
    if sent.is_empty() {
        return;
    }
    answers(case, &sent, found);
    let singles: HashSet<(Request, SkuAt, u64)> = singles(case, &sent);
    let mut rows: HashMap<Request, Vec<&Row>> = HashMap::new();
    for row in &case.rows {
        let request = (row.sale, row.buyer, row.request);
        if sent.contains_key(&request) {
            rows.entry(request).or_default().push(row);
        }
    }
    let orders: HashMap<Name, &Order> = case.orders.iter().map(|o| (o.name, o)).collect();
    let is_explained = |row: &&Row| is_explained(case, allow, row, orders.get(&row.order).copied());
    for (request, rows) in rows {
        // The same key may have been sent with other content, of which at most one was bought.
        let bought = || sent[&request].iter().filter(|op| op.may_have_happened());
        let is_bought = |rows: &[&Row]| bought().any(|op| is_that(op, rows));
        let is_single = |row: &Row| singles.contains(&(request, row.sku, row.quantity));
        let others: Vec<&Row> = rows.iter().copied().filter(|row| !is_single(row)).collect();
        let is_whole = is_bought(&rows)
            || others.is_empty()
            || is_bought(&others)
            || bought().next().is_none();
        let is_refused = |row: &&&Row| row.status == OrderStatus::Refused;
        let refused = rows.iter().filter(is_refused).count();
        let is_one = (refused == 0 || refused == rows.len()) && rows.iter().all(is_explained);
        if (!is_whole || !is_one) && !may_be_torn(case, allow, bought()) {
            let asked = sent[&request].iter().map(|op| op.line);
            found.add(
                Rule::PartialCart,
                rows.iter().map(|row| row.line).chain(asked),
                || {
                    let told: Vec<String> = rows.iter().map(|row| told(case, row)).collect();
                    format!(
                        "a cart of {} is in the ledger as {}",
                        case.text(request.1),
                        told.join(", ")
                    )
                },
            );
        }
    }
}

/// What may have been bought alone under the key of a cart: a line of none.
fn singles(case: &Case, sent: &HashMap<Request, Vec<&Op>>) -> HashSet<(Request, SkuAt, u64)> {
    let bought = case
        .ops
        .iter()
        .filter(|op| op.f == Action::Buy && op.may_have_happened());
    let under = bought.filter_map(|op| {
        let request = (op.sale, op.buyer, op.request);
        let (sku, units) = *op.lines.first()?;
        sent.contains_key(&request).then_some((request, sku, units))
    });
    under.collect()
}

/// An answer to a cart names all its lines, and an answer to its return says that all are back.
fn answers(case: &Case, sent: &HashMap<Request, Vec<&Op>>, found: &mut Findings) {
    let skus = |op: &Op| {
        op.content()
            .iter()
            .map(|(sku, _)| *sku)
            .collect::<Vec<SkuAt>>()
    };
    let of_carts = case
        .ops
        .iter()
        .filter(|op| op.is_ok() && !op.cart.is_empty());
    for op in of_carts {
        if op.order != 0 {
            if op.f == Action::Cancel && op.state.is_some_and(OrderStatus::is_live) {
                found.add(Rule::PartialCart, op.both_lines(), || {
                    format!(
                        "{} gave a cart back, and a line of it stays",
                        case.text(op.buyer)
                    )
                });
            }
            continue;
        }
        let Some(sent) = sent.get(&(op.sale, op.buyer, op.request)) else {
            continue;
        };
        // Under a key that was sent with several contents the answer is about the one that was bought.
        if sent.iter().all(|other| skus(other) == skus(op)) {
            found.add(Rule::PartialCart, op.both_lines(), || {
                format!(
                    "the answer to {} leaves out a line of the cart",
                    case.text(op.buyer)
                )
            });
        }
    }
}

fn is_that(op: &Op, rows: &[&Row]) -> bool {
    let is_there = |(sku, units): &(SkuAt, u64)| {
        let mut rows = rows.iter();
        rows.any(|row| row.sku == *sku && row.quantity == *units)
    };
    op.content().len() == rows.len() && op.content().iter().all(is_there)
}

/// A line goes back because somebody asked for it, or because its time was over.
fn is_explained(case: &Case, allow: &Allow, row: &Row, order: Option<&Order>) -> bool {
    if row.status != OrderStatus::Released {
        return true;
    }
    let asked = order.into_iter().flat_map(|order| &order.cancels);
    let mut asked = asked.map(|at| &case.ops[*at as usize]);
    let ended = case.end.as_ref().map(|end| end.wall_ms);
    let is_over = match (row.pay_by_ms, ended) {
        (Some(pay_by), Some(ended)) => pay_by <= ended.saturating_add(allow.skew_ms),
        (Some(_), None) => true,
        (None, _) => false,
    };
    is_over || asked.any(|op| op.may_have_happened())
}

/// Below `durable` a fault may take one line back that the ledger had not heard of, and leave the other.
fn may_be_torn<'a>(case: &Case, allow: &Allow, bought: impl Iterator<Item = &'a &'a Op>) -> bool {
    let mut bought = bought;
    allow.is_lossy()
        && bought.any(|op| match op.is_ok() {
            true => case.faults.follows(op.end, allow.loss_window_ms * 1000),
            false => case.faults.last_end() > op.start,
        })
}

fn told(case: &Case, row: &Row) -> String {
    let (sku, status) = (case.sku_text(row.sku), row.status.name());
    format!("{} of {sku} {status}", row.quantity)
}
