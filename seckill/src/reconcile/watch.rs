//! The comparison on a timer, on the one node that holds its lease. What it reads each time does not grow with what is over
//! (INV-PAST-1): the counts of sales that go on, orders that are new, and at its end one sale whole.

use std::{sync::Arc, time::Duration};

use stock::StockError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{ReconcileError, Reconciler, check, outside_window, over_limit};
use crate::{
    engine::SaleEngine,
    ids::{OrderId, SaleId},
    lease::Lease,
    ledger::LedgerError,
    sale::Sale,
    ticks::Ticks,
};

/// How soon what does not fit is found.
const EVERY: Duration = Duration::from_secs(10);
/// New orders read at once, and how many such pieces at one look.
const PIECE: usize = 5_000;
const PIECES: usize = 20;
/// Orders are looked at when their ids are this old: they reach the ledger some time after they were made, by clocks that differ. What
/// comes later is seen at the end of its sale.
const SETTLED_AFTER_MS: u64 = 60_000;

/// Compares all sales, again and again. Keeps in memory up to where it has read new orders.
pub struct Watch {
    reconciler: Reconciler,
    read_up_to: Option<OrderId>,
}

impl Watch {
    /// A watch that begins with what is new now.
    pub fn new(reconciler: Reconciler) -> Self {
        Self {
            reconciler,
            read_up_to: None,
        }
    }

    /// One look, at an instant of the ledger's clock. Sales come with whether they are over. Findings are logged and counted where they
    /// are made; what can be mended is mended order by order. Answers how much did not fit.
    pub async fn look(&mut self, sales: &[(Sale, bool)], now_ms: u64) -> usize {
        let mut found = 0;
        for (sale, _) in sales.iter().filter(|(_, is_over)| !is_over) {
            match self.compare(sale, now_ms).await {
                Ok(findings) => found += findings,
                Err(error) => warn!(sale = %sale.id, %error, "a sale was not reconciled"),
            }
        }
        match self.audit_new(now_ms).await {
            Ok(findings) => found += findings,
            Err(error) => warn!(%error, "new orders were not audited"),
        }
        match self.audit_ended(sales, now_ms).await {
            Ok(findings) => found += findings,
            Err(error) => warn!(%error, "a sale was not audited at its end"),
        }
        found
    }

    async fn compare(&self, sale: &Sale, now_ms: u64) -> Result<usize, ReconcileError> {
        let findings = self.reconciler.compare(sale).await?.len();
        if findings > 0 {
            self.reconciler.repair(sale, now_ms).await?;
        }
        Ok(findings)
    }

    async fn audit_new(&mut self, now_ms: u64) -> Result<usize, LedgerError> {
        let mut found = 0;
        let before = OrderId::new(now_ms.saturating_sub(SETTLED_AFTER_MS), 0, 0);
        for _ in 0..PIECES {
            // A node whose lease is new begins here: the one before it has read the rest, or the end of the sale will.
            let after = self
                .read_up_to
                .filter(|known| *known < before)
                .unwrap_or(before);
            let ledger = &self.reconciler.ledger;
            let new = ledger.audit_new(after, before, PIECE).await?;
            found += new.outside_window.len() + new.over_limit.len();
            for (sale, orders) in new.outside_window {
                self.record(&sale, outside_window(orders));
            }
            for (sale, over) in new.over_limit {
                self.record(&sale, over_limit(&over));
            }
            self.read_up_to = Some(new.up_to.unwrap_or(before));
            if new.up_to.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn record(&self, sale: &SaleId, finding: super::Finding) {
        self.reconciler.violations.record(sale, &[finding]);
    }

    /// Reads one sale whole that is over and was not read since. One at a look: after an upgrade there may be many.
    async fn audit_ended(
        &self,
        sales: &[(Sale, bool)],
        now_ms: u64,
    ) -> Result<usize, ReconcileError> {
        let unaudited = self.reconciler.ledger.unaudited().await?;
        let is_due = |(sale, is_over): &&(Sale, bool)| *is_over && unaudited.contains(&sale.id);
        let Some((sale, _)) = sales.iter().find(is_due) else {
            return Ok(0);
        };
        let findings = match self.reconciler.run(sale).await {
            // The store has given its memory back: the ledger by itself.
            Err(ReconcileError::Store(StockError::NotOpen(_))) => {
                let audit = self.reconciler.ledger.audit(&sale.id).await?;
                let findings = check(&[], &audit.unwrap_or_default());
                self.reconciler.violations.record(&sale.id, &findings);
                findings
            }
            compared => compared?,
        };
        let ledger = &self.reconciler.ledger;
        ledger.mark_audited(&sale.id, now_ms).await?;
        Ok(findings.len())
    }
}

/// Compares until `shutdown`, on the one node that holds the lease.
pub async fn run(
    engine: Arc<SaleEngine>,
    reconciler: Reconciler,
    mut lease: impl Lease,
    shutdown: CancellationToken,
) {
    let mut watch = Watch::new(reconciler);
    let mut ticks = Ticks::every(EVERY);
    while ticks.next(&shutdown).await {
        let held = lease.hold().await;
        let now_ms = engine.ledger().now_ms(engine.now_ms()).await;
        match (held, now_ms) {
            (Ok(Some(_)), Ok(now_ms)) => {
                let sales = engine.catalogue().sales().into_iter();
                let sales: Vec<_> = sales
                    .map(|open| (open.sale.clone(), open.is_over))
                    .collect();
                watch.look(&sales, now_ms).await;
            }
            (Ok(None), _) => {}
            (Err(error), _) => warn!(%error, "sales were not reconciled"),
            (_, Err(error)) => warn!(%error, "sales were not reconciled"),
        }
    }
    if let Err(error) = lease.give_up().await {
        debug!(%error, "the lease of the comparison was not given back; it runs out by itself");
    }
}
