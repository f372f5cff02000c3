//! INV-BUYER-1: what one buyer holds of one sku, at every instant and in the ledger.

use std::collections::{HashMap, HashSet};

use super::Allow;
use super::case::{Answer, Case, Name, SkuAt};
use super::rule::{Findings, Rule};
use super::steps::Steps;
use super::stock::{Holdings, seconds};

/// The orders of one buyer for one sku.
type Held = HashMap<(Name, SkuAt), Vec<u32>>;

pub(super) fn judge(case: &Case, allow: &Allow, holdings: &Holdings, found: &mut Findings) {
    let mut held = Held::new();
    for (at, order) in case.orders.iter().enumerate() {
        for (sku, _) in &order.lines {
            held.entry((order.buyer, *sku)).or_default().push(at as u32);
        }
    }
    let known = over_limit(case, holdings, &held, found);
    over_limit_in_ledger(case, &known, found);
    false_limit(case, allow, holdings, &held, found);
}

fn limit_of(case: &Case, sku: SkuAt) -> Option<u64> {
    let sale = case.sales.get(&case.skus[sku as usize].sale)?;
    (sale.buyer_limit > 0).then_some(sale.buyer_limit)
}

/// Answers who was found to hold too much.
fn over_limit(
    case: &Case,
    holdings: &Holdings,
    held: &Held,
    found: &mut Findings,
) -> HashSet<(Name, SkuAt)> {
    let mut known = HashSet::new();
    for ((buyer, sku), orders) in held {
        let Some(limit) = limit_of(case, *sku) else {
            continue;
        };
        let mut changes = Vec::with_capacity(2 * orders.len());
        for at in orders {
            let order = &case.orders[*at as usize];
            if let Some((from, until)) = holdings.sure(*at as usize, order) {
                let units = order.units_of(*sku) as i64;
                changes.push((from, units, order.line(case)));
                changes.push((until, -units, 0));
            }
        }
        changes.sort_unstable();
        let (mut level, mut worst) = (0, (limit as i64, 0));
        for (at, change, _) in &changes {
            level += change;
            if level > worst.0 {
                worst = (level, *at);
            }
        }
        if worst.0 > limit as i64 {
            known.insert((*buyer, *sku));
            let lines = changes.iter().filter(|(at, ..)| *at <= worst.1);
            found.add(Rule::BuyerLimit, lines.map(|(.., line)| *line), || {
                format!(
                    "{} holds {} units of {} at {}; the limit is {limit}",
                    case.text(*buyer),
                    worst.0,
                    case.sku_text(*sku),
                    seconds(worst.1)
                )
            });
        }
    }
    known
}

/// A buyer who is known already is one finding, not two.
fn over_limit_in_ledger(case: &Case, known: &HashSet<(Name, SkuAt)>, found: &mut Findings) {
    let mut live: HashMap<(Name, SkuAt), (u64, Vec<u32>)> = HashMap::new();
    for row in case.rows.iter().filter(|row| row.status.is_live()) {
        let (units, lines) = live.entry((row.buyer, row.sku)).or_default();
        *units += row.quantity;
        lines.push(row.line);
    }
    for ((buyer, sku), (units, lines)) in live {
        if let Some(limit) = limit_of(case, sku)
            && units > limit
            && !known.contains(&(buyer, sku))
        {
            found.add(Rule::BuyerLimit, lines, || {
                format!(
                    "{} holds {units} units of {} in the ledger; the limit is {limit}",
                    case.text(buyer),
                    case.sku_text(sku)
                )
            });
        }
    }
}

/// The limit is told only to a buyer whose possible orders could reach it.
fn false_limit(case: &Case, allow: &Allow, holdings: &Holdings, held: &Held, found: &mut Findings) {
    let refusals: Vec<_> = case
        .ops
        .iter()
        .filter(|op| {
            let is_refused = op.is_purchase() && op.answer == Answer::Fail;
            is_refused && op.is_first && case.code(op) == "buyer_limit"
        })
        .collect();
    if refusals.is_empty() {
        return;
    }
    let mut levels: HashMap<(Name, SkuAt), Steps> = HashMap::new();
    let mut changes: HashMap<(Name, SkuAt), Vec<(u64, i64)>> = HashMap::new();
    // Unknown purchases that came to nothing may have held units until a fault took them back.
    for key in case.keys.iter().filter(|key| key.orders.is_empty()) {
        let sent = key.purchases.iter().map(|op| &case.ops[*op as usize]);
        for op in sent.filter(|op| op.answer == Answer::Unknown) {
            for (sku, units) in &op.lines {
                let changes = changes.entry((op.buyer, *sku)).or_default();
                changes.push((op.start, *units as i64));
            }
        }
    }
    for op in refusals {
        let since = case.faults.since(op.start, allow.return_lag_ms * 1000);
        let is_explained = op.content().iter().any(|(sku, units)| {
            let Some(limit) = limit_of(case, *sku) else {
                return false;
            };
            let who = (op.buyer, *sku);
            let level = levels.entry(who).or_insert_with(|| {
                let mut changes = changes.remove(&who).unwrap_or_default();
                for at in held.get(&who).into_iter().flatten() {
                    let order = &case.orders[*at as usize];
                    let units = order.units_of(*sku) as i64;
                    let (from, until) = holdings.possible(case, order);
                    changes.push((from, units));
                    changes.push((until, -units));
                }
                Steps::new(0, changes)
            });
            level.highest(since, op.end) + *units as i64 > limit as i64
        });
        let is_known = case.sales.contains_key(&op.sale);
        if is_known && !is_explained {
            found.add(Rule::FalseBuyerLimit, op.both_lines(), || {
                format!(
                    "{} was told of the limit at {} and cannot have been at it",
                    case.text(op.buyer),
                    seconds(op.end)
                )
            });
        }
    }
}
