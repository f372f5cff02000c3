//! Units over time: no oversell at any instant, and no "sold out" that nothing explains.

use std::collections::{HashMap, HashSet};

use super::case::{Answer, Case, Name, Order, SkuAt};
use super::rule::{Findings, Rule};
use super::steps::Steps;
use super::{Allow, UNKNOWN_INSTANT};
use crate::history::event::Action;

/// What was added to a sku by one restock.
struct Restock {
    sku: SkuAt,
    units: u64,
    /// At the earliest.
    from: u64,
    /// At the latest; the end of time if nobody was told.
    by: u64,
}

/// When each order holds its units, by every choice of instants that its answers allow.
pub(super) struct Holdings {
    /// Orders that the level allows to be lost, and that are: they bind nobody.
    gone: HashSet<u32>,
    restocks: Vec<Restock>,
    return_lag_us: u64,
    skew_us: u64,
}

impl Holdings {
    pub(super) fn new(case: &Case, allow: &Allow) -> Holdings {
        let mut gone = HashSet::new();
        if allow.is_lossy() {
            gone.extend(gone_orders(case));
        }
        Holdings {
            gone,
            restocks: restocks(case),
            return_lag_us: allow.return_lag_ms * 1000,
            skew_us: allow.skew_ms * 1000,
        }
    }

    /// From when to when an order surely holds its units; `None` if at no instant.
    pub(super) fn sure(&self, at: usize, order: &Order) -> Option<(u64, u64)> {
        let mut until = order.returns_from;
        if order.returns_at_deadline {
            until = until.saturating_sub(self.skew_us);
        }
        let holds = order.takes_by < until && !self.gone.contains(&(at as u32));
        holds.then_some((order.takes_by, until))
    }

    /// From when to when it may hold them.
    pub(super) fn possible(&self, case: &Case, order: &Order) -> (u64, u64) {
        let until = case.faults.over_by(order.returns_by, self.return_lag_us);
        (order.takes_from, until)
    }
}

/// Acknowledged orders that the ledger does not have, or has refused.
pub(super) fn gone_orders(case: &Case) -> impl Iterator<Item = u32> {
    let orders = case.orders.iter().enumerate();
    orders
        .filter(|(_, order)| {
            let status = order.ledger_status(case);
            order.is_acknowledged()
                && case.has_books(order.sale)
                && status.is_none_or(|s| s == crate::ledger::OrderStatus::Refused)
        })
        .map(|(at, _)| at as u32)
}

fn restocks(case: &Case) -> Vec<Restock> {
    let mut found: HashMap<(SkuAt, Name), Restock> = HashMap::new();
    for op in &case.ops {
        if op.f != Action::Restock || op.answer == Answer::Fail {
            continue;
        }
        for (sku, units) in &op.lines {
            let one = found.entry((*sku, op.request)).or_insert(Restock {
                sku: *sku,
                units: *units,
                from: u64::MAX,
                by: u64::MAX,
            });
            one.from = one.from.min(op.start);
            one.by = one.by.min(op.end);
        }
    }
    found.into_values().collect()
}

/// Units that a sku may have had in all, by the end.
pub(super) fn most_units(case: &Case, holdings: &Holdings, sku: SkuAt) -> Option<u64> {
    let stock = case.skus[sku as usize].stock?;
    let added = holdings.restocks.iter().filter(|one| one.sku == sku);
    Some(stock + added.map(|one| one.units).sum::<u64>())
}

/// Judges; answers how many units were sold beyond the stock.
pub(super) fn judge(case: &Case, allow: &Allow, holdings: &Holdings, found: &mut Findings) -> u64 {
    let promised = oversold(case, holdings, found);
    let in_ledger = oversold_ledger(case, holdings, found);
    false_sold_out(case, allow, holdings, found);
    undersold(case, found);
    let of_each = promised.iter().zip(&in_ledger);
    of_each.map(|(promised, live)| promised.max(live)).sum()
}

/// INV-STOCK-1 in acknowledgements: the units that are surely held, against those that may have been there. Answers by how many units
/// each sku is oversold.
fn oversold(case: &Case, holdings: &Holdings, found: &mut Findings) -> Vec<u64> {
    let mut changes: Vec<Vec<(u64, i64)>> = vec![Vec::new(); case.skus.len()];
    for (at, order) in case.orders.iter().enumerate() {
        if let Some((from, until)) = holdings.sure(at, order) {
            for (sku, units) in &order.lines {
                changes[*sku as usize].push((from, *units as i64));
                changes[*sku as usize].push((until, -(*units as i64)));
            }
        }
    }
    for one in &holdings.restocks {
        changes[one.sku as usize].push((one.from, -(one.units as i64)));
    }
    let mut excess = vec![0; case.skus.len()];
    for (sku, mut changes) in changes.into_iter().enumerate() {
        let Some(stock) = case.skus[sku].stock else {
            continue;
        };
        // At one instant returns come before sales: that is possible, so it is no oversell.
        changes.sort_unstable();
        let mut level = -(stock as i64);
        let mut worst = (0, 0);
        for (at, change) in changes {
            level += change;
            if level > worst.0 {
                worst = (level, at);
            }
        }
        if worst.0 > 0 {
            excess[sku] = worst.0 as u64;
            report_oversell(case, holdings, sku as SkuAt, worst, found);
        }
    }
    excess
}

fn report_oversell(
    case: &Case,
    holdings: &Holdings,
    sku: SkuAt,
    (excess, at): (i64, u64),
    found: &mut Findings,
) {
    let mut held = 0;
    let mut lines = Vec::new();
    for (index, order) in case.orders.iter().enumerate() {
        let units = order.units_of(sku);
        let holds = holdings
            .sure(index, order)
            .is_some_and(|(from, until)| from <= at && at < until);
        if units > 0 && holds {
            held += units;
            // The latest are the ones that were too many.
            lines.push((std::cmp::Reverse(order.takes_by), order.line(case)));
        }
    }
    lines.sort_unstable();
    found.add(
        Rule::Oversold,
        lines.into_iter().map(|(_, line)| line),
        || {
            format!(
                "{}: at {} acknowledged and not returned orders hold {held} units of {}",
                case.sku_text(sku),
                seconds(at),
                held as i64 - excess
            )
        },
    );
}

/// INV-STOCK-1 in the ledger. Answers by how many units each sku is oversold there.
fn oversold_ledger(case: &Case, holdings: &Holdings, found: &mut Findings) -> Vec<u64> {
    let mut live = vec![(0, Vec::new()); case.skus.len()];
    for row in case.rows.iter().filter(|row| row.status.is_live()) {
        let (units, lines) = &mut live[row.sku as usize];
        *units += row.quantity;
        lines.push(row.line);
    }
    let mut excess = vec![0; case.skus.len()];
    for (sku, (units, lines)) in live.into_iter().enumerate() {
        let Some(most) = most_units(case, holdings, sku as SkuAt) else {
            continue;
        };
        if units > most {
            excess[sku] = units - most;
            found.add(Rule::OversoldLedger, lines.into_iter().rev(), || {
                format!(
                    "{}: live orders of the ledger hold {units} units of {most}",
                    case.sku_text(sku as SkuAt)
                )
            });
        }
    }
    excess
}

/// INV-STOCK-3: for each "sold out", the most that may have been held while it was decided.
fn false_sold_out(case: &Case, allow: &Allow, holdings: &Holdings, found: &mut Findings) {
    let refusals: Vec<_> = case
        .ops
        .iter()
        .filter(|op| {
            let is_refused = op.is_purchase() && op.answer == Answer::Fail;
            is_refused && op.is_first && case.code(op) == "sold_out"
        })
        .collect();
    if refusals.is_empty() {
        return;
    }
    let levels = possible_levels(case, allow, holdings);
    for op in refusals {
        let since = case.faults.since(op.start, allow.sold_out_lag_ms * 1000);
        let is_explained = op.content().iter().any(|(sku, units)| {
            let level = levels[*sku as usize].as_ref();
            level.is_none_or(|level| level.highest(since, op.end) > -(*units as i64))
        });
        if !is_explained {
            found.add(Rule::FalseSoldOut, op.both_lines(), || {
                let least = op.content().iter().map(|(sku, units)| {
                    let level = levels[*sku as usize].as_ref();
                    let free = level.map_or(0, |level| -level.highest(since, op.end));
                    format!(
                        "{units} of {} with at least {free} free",
                        case.sku_text(*sku)
                    )
                });
                format!(
                    "sold out was answered at {}: {}",
                    seconds(op.end),
                    least.collect::<Vec<_>>().join(", ")
                )
            });
        }
    }
}

/// Per sku, the most units that may be held less those that surely are there: above −n, n units may have been too many.
fn possible_levels(case: &Case, allow: &Allow, holdings: &Holdings) -> Vec<Option<Steps>> {
    let mut changes: Vec<Vec<(u64, i64)>> = vec![Vec::new(); case.skus.len()];
    let mut hold = |lines: &[(SkuAt, u64)], from: u64, until: u64| {
        for (sku, units) in lines {
            changes[*sku as usize].push((from, *units as i64));
            changes[*sku as usize].push((until, -(*units as i64)));
        }
    };
    for order in &case.orders {
        let (from, until) = holdings.possible(case, order);
        hold(&order.lines, from, until);
    }
    // Unknown, and no order came of it. Where the books are whole it took nothing that lasted: only a fault can have taken it
    // back.
    for key in case.keys.iter().filter(|key| key.orders.is_empty()) {
        let sent = key.purchases.iter().map(|op| &case.ops[*op as usize]);
        for op in sent.filter(|op| op.may_have_happened()) {
            let until = match case.has_books(op.sale) && !allow.is_lossy() {
                true => case.faults.last_end(),
                false => u64::MAX,
            };
            if until > op.start {
                hold(&op.lines, op.start, until);
            }
        }
    }
    for one in &holdings.restocks {
        let from = case.faults.over_by(one.by, holdings.return_lag_us);
        changes[one.sku as usize].push((from, -(one.units as i64)));
    }
    let with_stock = changes.into_iter().zip(&case.skus);
    with_stock
        .map(|(changes, sku)| Some(Steps::new(-(sku.stock? as i64), changes)))
        .collect()
}

/// INV-STOCK-3 at the end: buyers came until "sold out", so nothing is left.
fn undersold(case: &Case, found: &mut Findings) {
    if !case.end.as_ref().is_some_and(|end| end.drained) {
        return;
    }
    for (sale, (line, report)) in &case.reports {
        for sku in report.skus.iter().filter(|sku| sku.available > 0) {
            found.add(Rule::Undersold, [*line], || {
                format!(
                    "{}/{}: buyers came until the end, and {} of {} units are left",
                    case.text(*sale),
                    sku.sku,
                    sku.available,
                    sku.stock + sku.restocked
                )
            });
        }
    }
}

/// An instant as the reader of a log wants it.
pub(super) fn seconds(us: u64) -> String {
    if us == UNKNOWN_INSTANT {
        return "an unknown time".to_owned();
    }
    format!("{}.{:06} s", us / 1_000_000, us % 1_000_000)
}
