//! Compares the store with the ledger and names what does not fit, by invariant; `repair.rs` mends what can be mended.
//!
//! [`check`] is pure. [`Reconciler::run`] reads in an order that makes the comparison sound while a sale is running: store
//! counts, then queue, then ledger. An order accepted before the first read is then in the queue or in the ledger, so "neither"
//! is a loss. What needs a standstill (exact equality) is only compared when nothing moved and nothing is pending.

mod repair;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use metrics::Counter;
use serde::{Serialize, Serializer};
use stock::{QueueDepth, SegmentSpec, SegmentStatus, StockError, StockStore, words};

use crate::{
    ids::{SaleId, SkuId},
    ledger::{BuyerOverLimit, LedgerAudit, LedgerError, LedgerReport, OrderLedger, SkuReport},
    locks::Locked,
    sale::Sale,
};

pub use self::{
    repair::{FrozenSegment, Repairs},
    watch::{Watch, run},
};

words! {
    /// The invariants of stock and orders, by the names of `docs/invariants.md`.
    pub enum Invariant {
        /// No oversell.
        Stock1 = "INV-STOCK-1",
        /// available + reserved + sold = stock + restocks.
        Stock2 = "INV-STOCK-2",
        /// A buyer's live units are within the limit.
        Buyer1 = "INV-BUYER-1",
        /// One order per request id, ever.
        Order1 = "INV-ORDER-1",
        /// No order without deduction, no deduction without order.
        Order2 = "INV-ORDER-2",
        /// An acknowledged order is never lost.
        Order3 = "INV-ORDER-3",
        /// Returned at most once, never after paid.
        Order4 = "INV-ORDER-4",
        /// Nothing is sold outside the window.
        Window1 = "INV-WINDOW-1",
    }
}

impl Serialize for Invariant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was broken.
    pub invariant: Invariant,
    /// Where, and with which numbers.
    pub detail: String,
    /// The sku, or empty for the whole sale; with the invariant it tells a new finding from one already counted.
    #[serde(skip)]
    subject: String,
}

/// What was read of one segment.
#[derive(Debug, Clone)]
pub struct SegmentReading {
    /// The store's counts before the ledger was read.
    pub before: SegmentStatus,
    /// The queue, read after `before`.
    pub depth: QueueDepth,
    /// The store's counts after the ledger was read.
    pub after: SegmentStatus,
}

impl SegmentReading {
    /// Whether the segment stood still and had nothing on its way.
    fn is_quiet(&self) -> bool {
        self.before == self.after && self.depth.entries == 0
    }
}

/// Names everything that does not fit. Pure: the same readings give the same findings.
pub fn check(readings: &[SegmentReading], audit: &LedgerAudit) -> Vec<Finding> {
    let ledger = &audit.report;
    let mut findings = Vec::new();
    for reading in readings {
        for snapshot in [&reading.before, &reading.after] {
            check_store(snapshot, &mut findings);
        }
    }
    findings.dedup();
    for line in &ledger.skus {
        check_ledger(line, &mut findings);
        let of_sku: Vec<_> = readings
            .iter()
            .filter(|reading| reading.before.spec.id.sku == line.sku)
            .collect();
        if !of_sku.is_empty() {
            check_together(&of_sku, line, ledger, &mut findings);
        }
    }
    if audit.outside_window > 0 {
        findings.push(outside_window(audit.outside_window));
    }
    findings.extend(audit.over_limit.iter().map(over_limit));
    findings
}

fn outside_window(orders: u64) -> Finding {
    Finding {
        invariant: Invariant::Window1,
        detail: format!("{orders} orders were accepted outside the window"),
        subject: String::new(),
    }
}

fn over_limit(over: &BuyerOverLimit) -> Finding {
    Finding {
        invariant: Invariant::Buyer1,
        detail: format!(
            "buyer {} holds {} units of {}",
            over.buyer, over.units, over.sku
        ),
        subject: over.sku.to_string(),
    }
}

fn found(findings: &mut Vec<Finding>, invariant: Invariant, sku: &SkuId, detail: String) {
    findings.push(Finding {
        invariant,
        detail: format!("{sku}: {detail}"),
        subject: sku.to_string(),
    });
}

fn check_store(snapshot: &SegmentStatus, findings: &mut Vec<Finding>) {
    let sku = &snapshot.spec.id.sku;
    let stock = snapshot.capacity();
    let taken = snapshot.reserved + snapshot.sold;
    if taken > stock {
        found(
            findings,
            Invariant::Stock1,
            sku,
            format!("the store has {taken} units taken of {stock}"),
        );
    }
    if snapshot.available + taken != stock {
        let SegmentStatus {
            available,
            reserved,
            sold,
            ..
        } = snapshot;
        let detail = format!(
            "available {available} + reserved {reserved} + sold {sold} is not stock {stock}"
        );
        found(findings, Invariant::Stock2, sku, detail);
    }
}

fn check_ledger(line: &SkuReport, findings: &mut Vec<Finding>) {
    let total = line.stock + line.restocked;
    let live = line.reserved_units + line.paid_units;
    if live > total || line.sold > total {
        let detail = format!(
            "the ledger has {live} live units, counted {}, of {total}",
            line.sold
        );
        found(findings, Invariant::Stock1, &line.sku, detail);
    }
    if live != line.sold {
        let detail = format!(
            "the ledger counts {} units sold, its orders have {live}",
            line.sold
        );
        found(findings, Invariant::Order2, &line.sku, detail);
    }
}

fn check_together(
    readings: &[&SegmentReading],
    line: &SkuReport,
    ledger: &LedgerReport,
    findings: &mut Vec<Finding>,
) {
    let sum = |part: fn(&SegmentReading) -> u64| {
        readings.iter().map(|reading| part(reading)).sum::<u64>()
    };
    let accepted = sum(|reading| reading.before.accepted);
    let waiting = sum(|reading| reading.depth.entries);
    let recorded = line.orders + line.dead_letters;
    if accepted > recorded + waiting {
        let detail = format!("{accepted} orders accepted, {recorded} recorded, {waiting} waiting");
        found(findings, Invariant::Order3, &line.sku, detail);
    }
    // A restock reaches the ledger first; the store may have it a moment later, never the other way. Units on their way between two
    // segments are in neither; but a segment that gave some after it was read would have them counted twice.
    let store_stock = sum(|reading| reading.before.capacity());
    let total = line.stock + line.restocked;
    let gave = |reading: &&SegmentReading| reading.before.withdrawn != reading.after.withdrawn;
    if store_stock > total && !readings.iter().any(gave) {
        found(
            findings,
            Invariant::Stock2,
            &line.sku,
            format!("the store sells {store_stock} units, the ledger {total}"),
        );
    }
    if !readings.iter().all(|reading| reading.is_quiet()) || ledger.effects_pending > 0 {
        return;
    }
    // A rebuilt store has the orders of the ledger, and of the letters only those that it could go on holding units for.
    let taken = line.orders.saturating_sub(line.refused);
    let accepted_late = sum(|reading| reading.after.accepted);
    if taken > accepted_late {
        let detail = format!("{taken} orders recorded, only {accepted_late} accepted");
        found(findings, Invariant::Order2, &line.sku, detail);
    }
    let pairs = [
        (
            "reserved",
            sum(|reading| reading.after.reserved),
            line.reserved_units,
        ),
        ("sold", sum(|reading| reading.after.sold), line.paid_units),
    ];
    for (what, in_store, in_ledger) in pairs {
        if in_store != in_ledger {
            let detail = format!("{in_store} units {what} in the store, {in_ledger} in the ledger");
            found(findings, Invariant::Order2, &line.sku, detail);
        }
    }
}

/// Why a sale could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store gave no answer.
    #[error(transparent)]
    Store(#[from] StockError),
}

/// Reads both sides and compares them.
#[derive(Clone)]
pub struct Reconciler {
    store: Arc<dyn StockStore>,
    ledger: OrderLedger,
    violations: Violations,
}

impl Reconciler {
    /// Joins the parts.
    pub fn new(store: Arc<dyn StockStore>, ledger: OrderLedger, violations: Violations) -> Self {
        Self {
            store,
            ledger,
            violations,
        }
    }

    /// Compares one sale, all of its orders read. Changes nothing but the counters, and those only for what was not found before.
    pub async fn run(&self, sale: &Sale) -> Result<Vec<Finding>, ReconcileError> {
        let audit = async || self.ledger.audit(&sale.id).await;
        self.compare_with(sale, audit).await
    }

    /// Compares the counts of one sale.
    pub async fn compare(&self, sale: &Sale) -> Result<Vec<Finding>, ReconcileError> {
        let counts = async || {
            let report = self.ledger.counts(&sale.id).await?;
            Ok(report.map(|report| LedgerAudit {
                report,
                ..LedgerAudit::default()
            }))
        };
        self.compare_with(sale, counts).await
    }

    async fn compare_with(
        &self,
        sale: &Sale,
        read_ledger: impl AsyncFnOnce() -> Result<Option<LedgerAudit>, LedgerError>,
    ) -> Result<Vec<Finding>, ReconcileError> {
        let specs = sale.segment_specs();
        if self.was_never_open(&sale.id, &specs).await? {
            return Ok(Vec::new());
        }
        let mut before = Vec::with_capacity(specs.len());
        for spec in &specs {
            let snapshot = self.store.snapshot(&spec.id).await?;
            before.push((snapshot, self.store.depth(&spec.id).await?));
        }
        let ledger = read_ledger().await?.unwrap_or_default();
        let mut readings = Vec::with_capacity(specs.len());
        for (spec, (before, depth)) in specs.iter().zip(before) {
            readings.push(SegmentReading {
                before,
                depth,
                after: self.store.snapshot(&spec.id).await?,
            });
        }
        let findings = check(&readings, &ledger);
        self.violations.record(&sale.id, &findings);
        Ok(findings)
    }

    /// A draft, or a sale that the store has not taken yet: nothing was sold, so there is nothing to compare. What the ledger
    /// remembers as open and the store does not know is another matter.
    async fn was_never_open(
        &self,
        sale: &SaleId,
        specs: &[SegmentSpec],
    ) -> Result<bool, ReconcileError> {
        for spec in specs {
            match self.store.snapshot(&spec.id).await {
                Err(StockError::NotOpen(_)) => {}
                Ok(_) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.ledger.opened(sale).await?.is_empty())
    }
}

/// `penstock_invariant_violations_total`, one series per invariant. Clones share what was found.
#[derive(Clone)]
pub struct Violations {
    counters: Arc<HashMap<Invariant, Counter>>,
    /// Findings already counted: a second run over the same fault counts nothing. Bounded by sales × skus × invariants.
    known: Arc<Mutex<HashSet<(SaleId, Invariant, String)>>>,
}

impl Default for Violations {
    /// Registers all series.
    fn default() -> Self {
        let counter = |invariant: &Invariant| {
            (
                *invariant,
                metrics::counter!("penstock_invariant_violations_total", "invariant" => invariant.as_str()),
            )
        };
        Self {
            counters: Arc::new(Invariant::ALL.iter().map(counter).collect()),
            known: Arc::default(),
        }
    }
}

impl Violations {
    /// One violation was seen as it happened.
    pub fn count(&self, invariant: Invariant) {
        if let Some(counter) = self.counters.get(&invariant) {
            counter.increment(1);
        }
    }

    fn record(&self, sale: &SaleId, findings: &[Finding]) {
        let mut known = self.known.locked();
        for finding in findings {
            if known.insert((sale.clone(), finding.invariant, finding.subject.clone())) {
                tracing::error!(%sale, invariant = finding.invariant.as_str(), detail = finding.detail, "invariant broken");
                self.count(finding.invariant);
            }
        }
    }
}
