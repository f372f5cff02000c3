//! Keeping a node's catalogue true: opens what is new, applies what other nodes changed, reads counts.
//!
//! Each segment stands alone here: one that the store cannot answer for is refused to its buyers (503) and tried again, while
//! all others go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ahash::AHashMap;
use tokio_util::sync::CancellationToken;

use super::{EngineError, SaleEngine};
use crate::{
    catalogue::{OpenSale, Segment},
    ids::{SaleId, SegmentId, SkuId},
    ledger::{LedgerError, Restock},
    purchase,
    sale::{Sale, SkuOnSale, Stage},
    sold_out::SoldOut,
    store::{Gate, SegmentSpec, Snapshot, StockError},
};

/// How often a node re-reads sales and counts: bounds how long it may say "sold out" after another node returned a unit.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// Accepted orders read from the store at once.
const TAIL_PAGE: usize = 1000;
/// The epoch of a segment whose counts could not be read yet; the store's answer to the first call corrects it.
const FIRST_EPOCH: u64 = 1;

impl SaleEngine {
    /// Refreshes until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "sales were not refreshed");
            }
        }
    }

    /// Re-reads all sales and counts. Fails only if the ledger cannot be read; segments that the store cannot answer for are
    /// logged, and [`SaleEngine::is_ready`] says no while it answers for none.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        // The lists after the sales and before any sale is shown: whoever sees a sale finds its lists read.
        let read = async {
            let sales = self.ledger.sales().await?;
            self.admission.refresh(&self.ledger).await?;
            Ok::<_, LedgerError>(sales)
        };
        let sales = match read.await {
            Ok(sales) => sales,
            Err(error) => {
                self.is_ready.store(false, Ordering::Relaxed);
                return Err(error.into());
            }
        };
        let (mut answered, mut silent) = (0, 0);
        for sale in sales {
            match self.apply(&sale).await {
                Ok(()) => answered += 1,
                Err(error) => {
                    silent += 1;
                    tracing::warn!(sale = %sale.id, %error, "a sale was not refreshed");
                }
            }
        }
        self.is_ready
            .store(answered > 0 || silent == 0, Ordering::Relaxed);
        Ok(())
    }

    /// Re-reads one sale that was just changed here.
    pub(super) async fn refresh_sale(&self, sale: &SaleId) -> Result<(), EngineError> {
        let _changing = self.changing.lock().await;
        let sale = self.ledger.sale(sale).await?;
        self.admission.refresh(&self.ledger).await?;
        match sale {
            Some(sale) => self.apply(&sale).await,
            None => Ok(()),
        }
    }

    /// Brings the catalogue up to a sale as the ledger has it. The sale is there afterwards even if a segment is in trouble; the
    /// first trouble is the error. A draft is the ledger's alone.
    async fn apply(&self, sale: &Sale) -> Result<(), EngineError> {
        let applied = match sale.rules.stage {
            Stage::Draft => Ok(()),
            Stage::Published => self.apply_published(sale).await,
        };
        self.show_sale(sale, applied.is_ok());
        applied
    }

    async fn apply_published(&self, sale: &Sale) -> Result<(), EngineError> {
        let known = self.catalogue.sale(&sale.id);
        let mut trouble = None;
        if let Some(open) = known
            .as_deref()
            .filter(|open| open.sale == *sale && open.is_whole)
        {
            let wanted: AHashMap<SegmentId, SegmentSpec> = sale
                .segment_specs()
                .into_iter()
                .map(|spec| (spec.id.clone(), spec))
                .collect();
            for segment in open.segments() {
                if let Err(error) = self.keep_up(sale, wanted.get(&segment.id), segment).await {
                    trouble.get_or_insert(error);
                }
            }
            return trouble.map_or(Ok(()), Err);
        }
        let mut segments = Vec::with_capacity(sale.skus.len());
        for (spec, sku) in sale.segment_specs().into_iter().zip(&sale.skus) {
            let segment = match known.as_deref().and_then(|open| open.segment(&sku.sku)) {
                Some(segment) => segment.clone(),
                None => self.new_segment(&spec.id, sku),
            };
            match self.open_segment(sale, &spec).await {
                Ok(snapshot) => {
                    if let Err(error) = self.catch_up(&segment, &snapshot).await {
                        trouble.get_or_insert(error);
                    }
                }
                Err(error) => {
                    trouble.get_or_insert(error);
                }
            }
            segments.push(segment);
        }
        self.catalogue
            .put(OpenSale::new(sale.clone(), segments, trouble.is_none()));
        let all = self
            .catalogue
            .segments()
            .iter()
            .map(|segment| segment.id.clone())
            .collect();
        self.segments.send_replace(all);
        trouble.map_or(Ok(()), Err)
    }

    /// Opens a segment in the store, once in its life. If the ledger remembers it as opened and the store does not know it, the
    /// store has lost its data: opening it again would put the whole stock on sale a second time, so it stays closed (its
    /// buyers get 503) until [`crate::recovery`] has rebuilt it.
    async fn open_segment(&self, sale: &Sale, spec: &SegmentSpec) -> Result<Snapshot, EngineError> {
        if self.ledger.is_opened(&spec.id).await? {
            match self.store.snapshot(&spec.id).await {
                Ok(_) => {}
                Err(StockError::NotOpen(id)) => {
                    tracing::error!(segment = %id, "the store has lost this segment; it sells nothing until it is rebuilt");
                    return Err(StockError::NotOpen(id).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut snapshot = self.store.open(spec).await?;
        self.ledger.mark_opened(&spec.id, self.now_ms()).await?;
        // A frozen segment is thawed by whoever froze it, not by a node that starts.
        if snapshot.gate != sale.gate && snapshot.gate != Gate::Frozen {
            snapshot = self.store.set_gate(&spec.id, sale.gate).await?;
        }
        for restock in self
            .missing_restocks(&sale.id, &spec.id.sku, &snapshot)
            .await?
        {
            snapshot = self
                .store
                .restock(&spec.id, &restock.id, restock.units)
                .await?;
        }
        Ok(snapshot)
    }

    /// Restocks that the ledger has booked and the store may have missed: a crash between the two leaves units unsold.
    async fn missing_restocks(
        &self,
        sale: &SaleId,
        sku: &SkuId,
        snapshot: &Snapshot,
    ) -> Result<Vec<Restock>, EngineError> {
        let mut booked = self.ledger.restocks(sale).await?;
        booked.retain(|restock| restock.sku == *sku);
        let units: u64 = booked.iter().map(|restock| restock.units).sum();
        Ok(if units == snapshot.restocked {
            Vec::new()
        } else {
            booked
        })
    }

    fn new_segment(&self, id: &SegmentId, sku: &SkuOnSale) -> Arc<Segment> {
        let (lane, work) = purchase::lane();
        let segment = Arc::new(Segment {
            id: id.clone(),
            tag: id.tag(),
            price_minor: sku.price_minor,
            epoch: AtomicU64::new(FIRST_EPOCH),
            sold_out: SoldOut::default(),
            lane,
        });
        let accepted = self.accepted.clone();
        let ring = move || accepted.notify_waiters();
        let lane = purchase::run_lane(work, Arc::downgrade(&segment), self.store.clone(), ring);
        self.runtime.spawn(lane);
        segment
    }

    /// Reads the counts of a segment that is open already. If the store goes by other rules than the ledger's (a node that read
    /// the ledger earlier opened it later than the one that knew better), it gets the right ones.
    async fn keep_up(
        &self,
        sale: &Sale,
        wanted: Option<&SegmentSpec>,
        segment: &Segment,
    ) -> Result<(), EngineError> {
        let mut snapshot = self.store.snapshot(&segment.id).await?;
        if let Some(wanted) = wanted.filter(|wanted| has_other_rules(&snapshot.spec, wanted)) {
            snapshot = self.open_segment(sale, wanted).await?;
        }
        self.catch_up(segment, &snapshot).await
    }

    /// Brings a segment's memory and gauges up to a snapshot.
    async fn catch_up(&self, segment: &Segment, snapshot: &Snapshot) -> Result<(), EngineError> {
        // A node that accepted everything itself knows everything; others read on from where they were.
        while segment.sold_out.known() < snapshot.accepted {
            let after = segment.sold_out.read_up_to();
            let page = self
                .store
                .accepted_after(&segment.id, after, TAIL_PAGE)
                .await?;
            let Some((last, _)) = page.last() else { break };
            for (_, order) in &page {
                segment.sold_out.remember(&order.buyer, &order.request);
            }
            segment.sold_out.has_read_up_to(*last);
        }
        self.observe(segment, snapshot);
        Ok(())
    }

    /// Learns from a snapshot and shows it.
    pub(super) fn observe(&self, segment: &Segment, snapshot: &Snapshot) {
        let now_ms = self.now_ms();
        let window = snapshot.spec.starts_at_ms..snapshot.spec.ends_at_ms;
        let is_selling = snapshot.gate == Gate::Open && window.contains(&now_ms);
        // "Sold out" is said only of a sale that is on: paused, frozen and ended ones have answers of their own.
        if snapshot.available == 0 && is_selling {
            segment
                .sold_out
                .observe_empty(snapshot.version, snapshot.accepted);
        } else {
            segment.sold_out.observe_stocked(snapshot.version);
        }
        segment.epoch.fetch_max(snapshot.epoch, Ordering::AcqRel);
        self.note_free(snapshot);
        // Sales and skus are bounded by what operators create, so they may be labels of gauges (and of nothing else).
        let labels = [
            ("sale", snapshot.spec.id.sale.to_string()),
            ("sku", snapshot.spec.id.sku.to_string()),
        ];
        let initial = snapshot.spec.stock + snapshot.restocked;
        // In this order: a reading in between must never show more taken than there is.
        metrics::gauge!("penstock_stock_initial_units", &labels).set(initial as f64);
        metrics::gauge!("penstock_stock_available_units", &labels).set(snapshot.available as f64);
        metrics::gauge!("penstock_stock_reserved_units", &labels).set(snapshot.reserved as f64);
        metrics::gauge!("penstock_stock_sold_units", &labels).set(snapshot.sold as f64);
    }
}

/// Whether two specs of a segment would decide a purchase differently. The stock is not a rule: restocks change it.
fn has_other_rules(one: &SegmentSpec, other: &SegmentSpec) -> bool {
    let rules = |spec: &SegmentSpec| {
        (
            spec.starts_at_ms,
            spec.ends_at_ms,
            spec.buyer_limit,
            spec.pay_within_ms,
        )
    };
    rules(one) != rules(other)
}
