//! Sales that are over: when one stops being watched, and when it is taken up again.
//!
//! A sale that nobody can buy or pay any more is kept for late reads only, so that a node's work does not grow with every sale
//! there ever was. But its segments are still somebody's memory: late retries find their orders there, and returns and payments
//! that the ledger decides must reach it. So a sale is over only while the ledger wants nothing of it and each of its segments
//! is whole; otherwise settlement and recovery go on with it as before its end.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use tokio_util::sync::CancellationToken;

use super::{
    EngineError, SaleEngine,
    refresh::{SALES_AT_ONCE, bounded, is_next, ticks},
};
use crate::{
    catalogue::OpenSale,
    recovery,
    sale::Sale,
    store::{SegmentSpec, StockError},
};

/// How often sales that are over are looked at: bounds how long an unpaid order of one may wait for a rebuild to begin.
const REVIEW_EVERY: Duration = Duration::from_secs(30);
/// How long after its last order's time to pay a sale is still read: clocks differ, and a payment may be under way.
const GRACE_MS: u64 = 60_000;
/// The name under which a review pulls. The queue was empty just before; what came since, a worker takes over.
const REVIEWER: &str = "review";

impl SaleEngine {
    pub(super) async fn keep_reviewing(&self, shutdown: CancellationToken) {
        let mut ticks = ticks(REVIEW_EVERY);
        while is_next(&mut ticks, &shutdown).await {
            self.review().await;
        }
    }

    /// Looks at all sales that are over, and takes those up again that something is still to be done for: the next refresh
    /// watches them. One whose store or ledger does not answer is looked at again later.
    pub async fn review(&self) {
        let over = self.catalogue.sales().into_iter();
        let over = over.filter(|open| open.is_over);
        stream::iter(over)
            .map(|open| async move { self.review_sale(&open.sale).await })
            .buffer_unordered(SALES_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    async fn review_sale(&self, sale: &Sale) {
        let is_retired = lock(&self.retired).contains(&sale.id);
        let is_over = match is_retired {
            // Only the ledger can want anything of it now.
            true => {
                let work = self.ledger.has_work(&sale.id).await;
                work.map(|has_work| !has_work).map_err(EngineError::from)
            }
            false => self.is_over(sale).await,
        };
        match is_over {
            Ok(true) if is_retired => {}
            Ok(true) => {
                if self.let_retire(sale).await && self.now_ms() >= sale.kept_until_ms() + GRACE_MS {
                    lock(&self.retired).insert(sale.id.clone());
                }
            }
            Ok(false) => {
                tracing::info!(sale = %sale.id, "a sale that was over has work again");
                lock(&self.retired).remove(&sale.id);
                self.take_up(sale).await;
            }
            Err(error) => {
                tracing::debug!(sale = %sale.id, %error, "a sale that is over was not looked at");
            }
        }
    }

    /// Whether nothing is left to do for a sale but to answer late reads.
    pub(super) async fn is_over(&self, sale: &Sale) -> Result<bool, EngineError> {
        if self.now_ms() <= sale.last_payment_ms() + GRACE_MS
            || self.ledger.has_work(&sale.id).await?
        {
            return Ok(false);
        }
        let specs = sale.segment_specs();
        let epochs = self.ledger.epochs_of(&sale.id).await?;
        let rests = specs.iter().map(|spec| {
            let epoch = epochs.get(&spec.id).copied();
            self.is_at_rest(sale, spec, epoch)
        });
        let rests = join_all(rests).await;
        let rests: Vec<bool> = rests.into_iter().collect::<Result<_, _>>()?;
        Ok(rests.into_iter().all(|rests| rests))
    }

    /// Whether a segment of a sale without work can be left alone: it is whole and all its orders are in the ledger.
    async fn is_at_rest(
        &self,
        sale: &Sale,
        spec: &SegmentSpec,
        epoch: Option<u64>,
    ) -> Result<bool, EngineError> {
        let counts = match bounded(self.store.snapshot(&spec.id)).await {
            Ok(counts) => counts,
            // Lost. Nobody asks for what was in it once its requests may be forgotten.
            Err(StockError::NotOpen(_)) => {
                return Ok(epoch.is_none() || self.now_ms() >= sale.kept_until_ms());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(epoch) = epoch else {
            // Opened a moment ago, and its node died before it said so.
            return Ok(false);
        };
        if recovery::doubts(epoch, &counts) {
            return Ok(false);
        }
        Ok(bounded(self.store.depth(&spec.id)).await?.entries == 0)
    }

    /// A store gives the memory of a segment back when it is asked for work, has none, and nobody may repeat a request any more.
    /// False if one was not asked.
    async fn let_retire(&self, sale: &Sale) -> bool {
        let mut is_asked = true;
        for spec in sale.segment_specs() {
            let pulled = self.store.pull(&spec.id, REVIEWER, 1, Duration::MAX);
            match bounded(pulled).await {
                Ok(_) | Err(StockError::NotOpen(_)) => {}
                Err(error) => {
                    is_asked = false;
                    tracing::debug!(segment = %spec.id, %error, "a segment that is over was not asked for work");
                }
            }
        }
        is_asked
    }

    /// Has the next refresh watch a sale again.
    async fn take_up(&self, sale: &Sale) {
        let _changing = self.changing.lock().await;
        if let Some(known) = self.catalogue.sale(&sale.id).filter(|open| open.is_over) {
            let stocks = known.stocks().cloned().collect();
            let carts = known.carts.clone();
            self.catalogue
                .put(OpenSale::new(known.sale.clone(), stocks, carts, false));
            self.tell_segments();
        }
    }

    /// Keeps a sale for late reads only: nobody can buy or pay any more, and all its orders are in the ledger. Its counts are not
    /// read again, its memory goes, its queues are left alone. A replay or a look at an old order still asks the store.
    pub(super) fn put_over(&self, sale: Sale, known: Option<&OpenSale>) {
        let stocks: Vec<_> = sale
            .skus
            .iter()
            .map(|sku| self.stock(&sale, sku, known))
            .collect();
        for segment in stocks.iter().flat_map(|stock| &stock.segments) {
            segment.sold_out.forget();
        }
        let carts = known.map(|open| open.carts.clone()).unwrap_or_default();
        self.catalogue.put(OpenSale::over(sale, stocks, carts));
        self.tell_segments();
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
