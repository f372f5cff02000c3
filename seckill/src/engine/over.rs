//! Sales that are over: when one stops being watched, and when it is taken up again.
//!
//! A sale that nobody can buy or pay any more is kept for late reads only, so that a node's work does not grow with every sale
//! there ever was. But its segments are still asked: late retries find their orders there, and returns and payments
//! that the ledger decides must reach it. So a sale is over only while the ledger wants nothing of it and each of its segments
//! is whole; otherwise settlement and rebuilds go on with it as before its end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use stock::{Gate, SegmentSpec, StockError};
use tokio_util::sync::CancellationToken;

use super::{
    EngineError, SaleEngine,
    refresh::{SALES_AT_ONCE, bounded},
};
use crate::{
    catalogue::OpenSale,
    ids::{SaleId, SegmentId},
    ledger::{Ended, LedgerError},
    locks::Locked,
    rebuild,
    sale::{Sale, Stage},
    ticks::Ticks,
};

/// How often sales that are over are looked at: bounds how long an unpaid order of one may wait for a rebuild to begin.
const REVIEW_EVERY: Duration = Duration::from_secs(30);
/// How long after its last order's time to pay a sale is still read: clocks differ, and a payment may be under way.
const GRACE_MS: u64 = 60_000;
/// The name under which a review pulls. The queue was empty just before; what came since, a worker takes over.
const REVIEWER: &str = "review";

/// What the ledger knows of sales whose time is over.
pub(super) struct EndedSales {
    in_ledger: HashMap<SaleId, Ended>,
    epochs: HashMap<SegmentId, u64>,
}

impl EndedSales {
    fn has_work(&self, sale: &SaleId) -> bool {
        self.in_ledger.get(sale).is_some_and(|known| known.has_work)
    }
}

impl SaleEngine {
    pub(super) async fn keep_reviewing(&self, shutdown: CancellationToken) {
        // The first review is of those that were just read.
        let mut over_read = self.over_read.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = over_read.wait_for(|is_read| *is_read) => {}
        }
        let mut ticks = Ticks::every(REVIEW_EVERY);
        while ticks.next(&shutdown).await {
            self.review().await;
        }
    }

    /// Waits until those that are over are read, or for so long: a node with much behind it sells before.
    pub(crate) async fn over_read_within(&self, patience: Duration) {
        let mut over_read = self.over_read.subscribe();
        let is_read = over_read.wait_for(|is_read| *is_read);
        if tokio::time::timeout(patience, is_read).await.is_err() {
            tracing::info!("sales that are over are still being read");
        }
    }

    /// Looks at all sales that are over, and takes those up again that something is still to be done for: the next refresh
    /// watches them. One whose store does not answer is looked at again later, and so are all if the ledger does not.
    pub async fn review(&self) {
        let over: Vec<_> = self.catalogue.sales();
        let over: Vec<_> = over.into_iter().filter(|open| open.is_over).collect();
        let ended = match self
            .ask_about_ended(over.iter().map(|open| &open.sale))
            .await
        {
            Ok(ended) => ended,
            Err(error) => {
                tracing::debug!(%error, "sales that are over were not looked at");
                return;
            }
        };
        let ended = &ended;
        stream::iter(over)
            .map(|open| async move { self.review_sale(&open.sale, ended).await })
            .buffer_unordered(SALES_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    async fn review_sale(&self, sale: &Sale, ended: &EndedSales) {
        let is_retired = self.is_retired(&sale.id);
        let is_over = match is_retired {
            // Only the ledger can want anything of it now.
            true => Ok(!ended.has_work(&sale.id)),
            false => self.is_over(sale, ended).await,
        };
        match is_over {
            Ok(true) if is_retired => {}
            Ok(true) => {
                if self.retire(sale).await && self.now_ms() >= sale.kept_until_ms() + GRACE_MS {
                    self.retired.locked().insert(sale.id.clone());
                }
            }
            Ok(false) => {
                tracing::info!(sale = %sale.id, "a sale that was over has work again");
                self.retired.locked().remove(&sale.id);
                self.adopt(sale).await;
            }
            Err(error) => {
                tracing::debug!(sale = %sale.id, %error, "a sale that is over was not looked at");
            }
        }
    }

    fn is_retired(&self, sale: &SaleId) -> bool {
        self.retired.locked().contains(sale)
    }

    /// Asks the ledger about those of `sales` whose time is over: two questions, however many they are.
    pub(super) async fn ask_about_ended(
        &self,
        sales: impl IntoIterator<Item = &Sale>,
    ) -> Result<EndedSales, LedgerError> {
        let now_ms = self.now_ms();
        let ended = sales.into_iter().filter(|sale| {
            let is_late = now_ms > sale.last_payment_ms() + GRACE_MS;
            sale.rules.stage == Stage::Published && (is_late || sale.gate == Gate::Closed)
        });
        let ended: Vec<&SaleId> = ended.map(|sale| &sale.id).collect();
        let in_ledger = self.ledger.ended(&ended).await?;
        let is_asked = |sale: &&SaleId| {
            let in_ledger = in_ledger.get(*sale);
            in_ledger.is_some_and(|known| !known.has_work && !self.is_taken_on_trust(sale, *known))
                && !self.is_retired(sale)
        };
        let asked: Vec<&SaleId> = ended.into_iter().filter(is_asked).collect();
        let epochs = self.ledger.epochs_of(&asked).await?;
        Ok(EndedSales { in_ledger, epochs })
    }

    /// Whether a sale is over without a look at its store: it is new to this node and was at rest after its end. A node that starts
    /// finds many of these. Its first review, which begins at once, looks at their stores.
    fn is_taken_on_trust(&self, sale: &SaleId, in_ledger: Ended) -> bool {
        in_ledger.is_audited && self.catalogue.sale(sale).is_none()
    }

    /// Whether nothing is left to do for a sale but to answer late reads.
    pub(super) async fn is_over(
        &self,
        sale: &Sale,
        ended: &EndedSales,
    ) -> Result<bool, EngineError> {
        match ended.in_ledger.get(&sale.id) {
            None => return Ok(false),
            Some(in_ledger) if in_ledger.has_work => return Ok(false),
            Some(in_ledger) if self.is_taken_on_trust(&sale.id, *in_ledger) => return Ok(true),
            Some(_) => {}
        }
        let specs = sale.segment_specs();
        let rests = specs.iter().map(|spec| {
            let epoch = ended.epochs.get(&spec.id).copied();
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
        if rebuild::doubts(epoch, &counts) {
            return Ok(false);
        }
        // A sale that was closed within its window is over when its segments know it: until then they sell.
        if counts.gate != Gate::Closed && self.now_ms() < sale.ends_at_ms {
            return Ok(false);
        }
        Ok(bounded(self.store.depth(&spec.id)).await?.entries == 0)
    }

    /// A store gives the memory of a segment back when it is asked for work, has none, and nobody may repeat a request any more.
    /// False if one was not asked.
    async fn retire(&self, sale: &Sale) -> bool {
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
    async fn adopt(&self, sale: &Sale) {
        let _changing = self.changing.lock().await;
        if let Some(known) = self.catalogue.sale(&sale.id).filter(|open| open.is_over) {
            let stocks = known.stocks().cloned().collect();
            let carts = known.carts.clone();
            self.catalogue
                .put(OpenSale::new(known.sale.clone(), stocks, carts, false));
            self.tell_segments();
        }
    }

    /// A sale as it is kept for late reads only: nobody can buy or pay any more, and all its orders are in the ledger. Its counts are
    /// not read again, its memory goes, its queues are left alone. A replay or a look at an old order still asks the store.
    pub(super) fn over(&self, sale: Sale, known: Option<Arc<OpenSale>>) -> OpenSale {
        if let Some(known) = known.as_deref().filter(|known| !known.is_over) {
            for segment in known.segments() {
                segment.sold_out.forget();
            }
            known.stocks().for_each(|stock| stock.hide());
        }
        let carts = known.as_deref().map(|open| open.carts.clone());
        let stocks = known.as_deref().filter(|open| open.has_stocks());
        let stocks = stocks.map(|open| self.makes.stocks(&sale, Some(open)));
        let makes = self.makes.clone();
        let make = move |sale: &Sale| makes.stocks(sale, None);
        OpenSale::over(sale, stocks, make, carts.unwrap_or_default())
    }

    /// Takes sales that are over into the catalogue.
    pub(super) fn archive(&self, over: Vec<OpenSale>) {
        if !over.is_empty() {
            self.catalogue.put_all(over);
            self.tell_segments();
        }
    }
}
