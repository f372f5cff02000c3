//! The judgement: the client's memory against the ledger's rows and the sale's own account. Pure; every rule has a test with
//! a case it must catch.

mod carts;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::ledger::{LedgerRow, OrderStatus, SaleReport};
use crate::history::History;
use crate::plan::Identities;

/// Examples named in a finding.
const EXAMPLES: usize = 5;

/// What the judge must know besides.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Units per purchase of this run.
    pub quantity: u64,
    /// The scenario's skus, in its order.
    pub skus: Vec<String>,
    /// Units a buyer may hold.
    pub buyer_limit: Option<u64>,
    /// By now every unpaid order should have been returned.
    pub expect_returns: bool,
}

/// Something broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Short name: `oversold`, `lost` …
    pub rule: String,
    /// The invariant it breaks, as named in `docs/invariants.md`.
    pub invariant: String,
    /// How many.
    pub count: u64,
    /// What was seen, with examples.
    pub detail: String,
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Units beyond the stock.
    pub oversold: u64,
    /// Request ids with more than one order.
    pub duplicated: u64,
    /// Acknowledged orders the ledger does not know.
    pub lost: u64,
    /// Ledger orders of requests that were refused or never sent.
    pub phantom: u64,
    /// Orders answered to one request and recorded for another.
    pub misattributed: u64,
    /// Carts answered or recorded without all their lines.
    pub partial_carts: u64,
    /// Disagreements on who paid.
    pub paid_mismatch: u64,
    /// Buyers who hold more than they may.
    pub over_limit: u64,
    /// Everything broken.
    pub findings: Vec<Finding>,
}

impl Judged {
    /// Whether everything found could be a row on its way, so that a second look is fair.
    pub fn may_be_in_passing(&self) -> bool {
        let passing = [
            "lost",
            "partial_cart",
            "paid_mismatch",
            "stock_sum",
            "unsettled",
            "unreturned",
        ];
        !self.findings.is_empty()
            && self
                .findings
                .iter()
                .all(|finding| passing.contains(&finding.rule.as_str()))
    }

    fn find(&mut self, rule: &str, invariant: &str, count: u64, detail: String) {
        if count > 0 {
            self.findings.push(Finding {
                rule: rule.into(),
                invariant: invariant.into(),
                count,
                detail,
            });
        }
    }
}

/// What the rules look at: rows by id and by purchase.
struct Books<'a> {
    history: &'a History,
    ids: &'a Identities,
    rows: &'a [LedgerRow],
    by_id: HashMap<&'a str, &'a LedgerRow>,
    /// Rows of this run, with their purchase.
    ours: Vec<(u32, &'a LedgerRow)>,
}

/// Sets the client's memory against the ledger and the sale's account.
pub fn judge(
    history: &History,
    ids: &Identities,
    rows: &[LedgerRow],
    report: &SaleReport,
    rules: &Rules,
) -> Judged {
    let books = Books {
        history,
        ids,
        rows,
        by_id: rows.iter().map(|row| (row.id.as_str(), row)).collect(),
        ours: rows
            .iter()
            .filter_map(|row| Some((ids.purchase_of(row.request_id.as_deref()?)?, row)))
            .collect(),
    };
    let mut judged = Judged::default();
    oversold(&books, report, rules, &mut judged);
    duplicated(&books, &mut judged);
    lost(&books, &mut judged);
    phantom(&books, &mut judged);
    carts::partial(&books, rules, &mut judged);
    paid_mismatch(&books, &mut judged);
    over_limit(&books, rules, &mut judged);
    account(report, rules, &mut judged);
    judged
}

/// INV-STOCK-1, twice: by the ledger's live units, and by what was acknowledged and not returned.
fn oversold(books: &Books<'_>, report: &SaleReport, rules: &Rules, judged: &mut Judged) {
    let mut live: HashMap<&str, u64> = HashMap::new();
    for row in books.rows.iter().filter(|row| row.status.is_live()) {
        *live.entry(&row.sku).or_default() += row.quantity;
    }
    let mut acknowledged: HashMap<&str, u64> = HashMap::new();
    for (purchase, orders) in books.history.acknowledged() {
        let lines: Vec<usize> = books.ids.skus_of(purchase).collect();
        for (at, order) in orders.iter().enumerate() {
            // An order the ledger does not know was promised all the same.
            let row = books.by_id.get(&**order);
            if row.is_none_or(|row| row.status.is_live()) {
                // Of a cart the row says which line it is, as long as there is one; orders come in the order of the lines. One order
                // too many is another finding.
                let line = lines.get(at).unwrap_or(&lines[0]);
                let sku = match row.filter(|_| lines.len() > 1) {
                    Some(row) => Some(&row.sku),
                    None => rules.skus.get(*line),
                };
                *acknowledged
                    .entry(sku.map_or("", String::as_str))
                    .or_default() += rules.quantity;
            }
        }
    }
    let mut detail = String::new();
    let known: HashMap<&str, u64> = report
        .skus
        .iter()
        .map(|sku| (sku.sku.as_str(), sku.stock + sku.restocked))
        .collect();
    let skus: HashSet<&str> = live.keys().chain(acknowledged.keys()).copied().collect();
    let mut skus: Vec<&str> = skus.into_iter().collect();
    skus.sort_unstable();
    for sku in skus {
        let units = known.get(sku).copied().unwrap_or(0);
        let in_ledger = live.get(sku).copied().unwrap_or(0);
        let promised = acknowledged.get(sku).copied().unwrap_or(0);
        let excess = in_ledger.max(promised).saturating_sub(units);
        if excess > 0 {
            judged.oversold += excess;
            detail.push_str(&format!(
                "{sku}: {units} units, {in_ledger} live in the ledger, {promised} acknowledged and not returned; "
            ));
        }
    }
    judged.find("oversold", "INV-STOCK-1", judged.oversold, detail);
}

/// INV-ORDER-1: one order per request id, in the answers and in the ledger; and the order of an answer is recorded for the
/// request that was answered.
fn duplicated(books: &Books<'_>, judged: &mut Judged) {
    let mut guilty: HashSet<u32> = books
        .history
        .acknowledged()
        .filter(|(purchase, orders)| orders.len() > books.ids.skus_of(*purchase).count())
        .map(|(purchase, _)| purchase)
        .collect();
    let mut seen: HashMap<(u32, &str), &str> = HashMap::new();
    for (purchase, row) in &books.ours {
        if *seen
            .entry((*purchase, line_of(books, *purchase, row)))
            .or_insert(&row.id)
            != row.id
        {
            guilty.insert(*purchase);
        }
    }
    judged.duplicated = guilty.len() as u64;
    judged.find(
        "duplicated",
        "INV-ORDER-1",
        judged.duplicated,
        examples(
            "request ids with more than one order of a sku",
            guilty.iter().map(|p| books.ids.request_id(*p)),
        ),
    );

    let wrong: Vec<&str> = books
        .history
        .acknowledged()
        .flat_map(|(purchase, orders)| orders.iter().map(move |order| (purchase, &**order)))
        .filter(|(purchase, order)| {
            let request_id = books
                .by_id
                .get(order)
                .and_then(|row| row.request_id.as_deref());
            request_id.is_some_and(|id| books.ids.purchase_of(id) != Some(*purchase))
        })
        .map(|(_, order)| order)
        .collect();
    judged.misattributed = wrong.len() as u64;
    judged.find(
        "misattributed",
        "INV-ORDER-1",
        judged.misattributed,
        examples(
            "orders answered to one request and recorded for another",
            wrong.iter(),
        ),
    );
}

/// What tells the orders of one request apart: of a cart the sku, of a single purchase nothing.
fn line_of<'a>(books: &Books<'_>, purchase: u32, row: &'a LedgerRow) -> &'a str {
    match books.ids.is_cart(purchase) {
        true => &row.sku,
        false => "",
    }
}

/// INV-ORDER-3: an acknowledged order is in the ledger.
fn lost(books: &Books<'_>, judged: &mut Judged) {
    let lost: Vec<&str> = books
        .history
        .acknowledged()
        .flat_map(|(_, orders)| orders)
        .map(|order| &**order)
        .filter(|order| !books.by_id.contains_key(order))
        .collect();
    judged.lost = lost.len() as u64;
    judged.find(
        "lost",
        "INV-ORDER-3",
        judged.lost,
        examples("acknowledged orders the ledger does not know", lost.iter()),
    );
}

/// INV-ORDER-2: no order for a request that was refused, or never sent.
fn phantom(books: &Books<'_>, judged: &mut Judged) {
    let phantoms: Vec<&str> = books
        .ours
        .iter()
        .filter(|(purchase, _)| {
            books.history.is_refused(*purchase) || !books.history.is_sent(*purchase)
        })
        .map(|(_, row)| row.id.as_str())
        .collect();
    judged.phantom = phantoms.len() as u64;
    judged.find(
        "phantom",
        "INV-ORDER-2",
        judged.phantom,
        examples(
            "ledger orders of requests that were refused or never sent",
            phantoms.iter(),
        ),
    );
}

/// INV-PAY-3: who paid has the goods, and who has them paid.
fn paid_mismatch(books: &Books<'_>, judged: &mut Judged) {
    let mut wrong = Vec::new();
    for (purchase, row) in &books.ours {
        let is_paid = row.status == OrderStatus::Paid;
        if books.history.is_paid(*purchase) && !is_paid {
            wrong.push(format!(
                "{} paid by the client, {:?} in the ledger",
                row.id, row.status
            ));
        }
        if is_paid && !books.history.may_be_paid(*purchase) {
            wrong.push(format!(
                "{} paid in the ledger, never by the client",
                row.id
            ));
        }
    }
    judged.paid_mismatch = wrong.len() as u64;
    judged.find(
        "paid_mismatch",
        "INV-PAY-3",
        judged.paid_mismatch,
        examples("orders", wrong.iter()),
    );
}

/// INV-BUYER-1: no buyer holds more of a sku than the limit.
fn over_limit(books: &Books<'_>, rules: &Rules, judged: &mut Judged) {
    let Some(limit) = rules.buyer_limit else {
        return;
    };
    let mut held: HashMap<(&str, &str), u64> = HashMap::new();
    for row in books.rows.iter().filter(|row| row.status.is_live()) {
        *held.entry((&row.buyer, &row.sku)).or_default() += row.quantity;
    }
    let mut over: Vec<_> = held.into_iter().filter(|(_, n)| *n > limit).collect();
    over.sort_unstable();
    judged.over_limit = over.len() as u64;
    let named = over
        .iter()
        .map(|((buyer, sku), n)| format!("{buyer} holds {n} of {limit} {sku}"));
    judged.find(
        "over_limit",
        "INV-BUYER-1",
        judged.over_limit,
        examples("buyers", named),
    );
}

/// INV-STOCK-2 and the settlement: the sale's own account adds up and is finished.
fn account(report: &SaleReport, rules: &Rules, judged: &mut Judged) {
    let wrong: Vec<String> = report
        .skus
        .iter()
        .filter(|s| s.available + s.reserved + s.sold != s.stock + s.restocked)
        .map(|s| {
            format!(
                "{}: {} available + {} reserved + {} sold, of {} + {} restocked",
                s.sku, s.available, s.reserved, s.sold, s.stock, s.restocked
            )
        })
        .collect();
    judged.find(
        "stock_sum",
        "INV-STOCK-2",
        wrong.len() as u64,
        examples("skus", wrong.iter()),
    );

    let unsettled = report.unsettled().max(report.queue_depth);
    judged.find(
        "unsettled",
        "INV-ORDER-3",
        unsettled,
        format!(
            "{} accepted, {} settled, {} refused, {} set aside, {} still queued",
            report.accepted,
            report.settled,
            report.refused,
            report.dead_letters,
            report.queue_depth
        ),
    );
    if rules.expect_returns {
        let reserved: u64 = report.skus.iter().map(|sku| sku.reserved).sum();
        judged.find(
            "unreturned",
            "INV-ORDER-4",
            reserved,
            format!("{reserved} units of unpaid orders were not returned in time"),
        );
    }
}

fn examples(what: &str, items: impl ExactSizeIterator<Item = impl AsRef<str>>) -> String {
    let count = items.len();
    let mut detail = format!("{count} {what}");
    for (at, item) in items.take(EXAMPLES).enumerate() {
        detail.push_str(if at == 0 { ": " } else { ", " });
        detail.push_str(item.as_ref());
    }
    if count > EXAMPLES {
        detail.push_str(", …");
    }
    detail
}

#[cfg(test)]
mod tests;
