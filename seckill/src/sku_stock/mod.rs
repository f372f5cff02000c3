//! The stock of one sku as this node sees it: its segments, who is at home in which, and what is known of all together.

mod in_flight;
mod rebalancer;
mod segment_runtime;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use metrics::Gauge;
use serde::Serialize;
use stock::{Gate, SegmentStatus};

use crate::{
    ids::{BuyerId, RequestId, SaleId, SkuId},
    locks::Locked,
    series,
    sold_out::SkuSoldOut,
};

pub(crate) use self::rebalancer::{Job, REBALANCER_DEPTH};
pub use self::{
    in_flight::{Entry, InFlight},
    rebalancer::{Found, Rebalancer, RebalancerWork, rebalancer},
    segment_runtime::SegmentRuntime,
};

/// The stock of one sku.
pub struct Stock {
    /// The sale.
    pub sale: SaleId,
    /// The sku.
    pub sku: SkuId,
    /// Price of one unit, in minor units of the sale's currency.
    pub price_minor: i64,
    /// Its segments, in the order that homes are counted in.
    pub segments: Vec<Arc<SegmentRuntime>>,
    /// The memory of "sold out" of all segments together.
    pub sold_out: Arc<SkuSoldOut>,
    /// Brings units to buyers whose home has none.
    pub rebalancer: Rebalancer,
    /// What was last read of each segment.
    readings: Vec<ArcSwapOption<SegmentStatus>>,
    /// There while the sale goes on. A `std` lock, held to set five numbers.
    gauges: Mutex<Option<Gauges>>,
}

/// Counts of a sku, summed over its segments. INV-STOCK-2: `available + reserved + sold = stock + restocked - in transfer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StockCounts {
    /// Units for sale.
    pub available: u64,
    /// Units of orders not yet paid.
    pub reserved: u64,
    /// Units of paid orders.
    pub sold: u64,
    /// Units that the segments have to account for: the first stock, and what came and went after it.
    pub capacity: u64,
    /// Orders ever accepted.
    pub accepted: u64,
    /// Units that ever entered or left a segment.
    pub moved: u64,
}

impl StockCounts {
    /// Sums the counts of segments.
    pub fn sum<'a>(snapshots: impl IntoIterator<Item = &'a SegmentStatus>) -> Self {
        snapshots
            .into_iter()
            .fold(Self::default(), |sum, one| Self {
                available: sum.available + one.available,
                reserved: sum.reserved + one.reserved,
                sold: sum.sold + one.sold,
                capacity: sum.capacity + one.capacity(),
                accepted: sum.accepted + one.accepted,
                moved: sum.moved + one.restocked + one.withdrawn,
            })
    }
}

impl Stock {
    /// A stock whose segments share `sold_out`.
    pub fn new(
        (sale, sku): (SaleId, SkuId),
        price_minor: i64,
        segments: Vec<Arc<SegmentRuntime>>,
        sold_out: Arc<SkuSoldOut>,
        rebalancer: Rebalancer,
    ) -> Self {
        Self {
            gauges: Mutex::default(),
            readings: segments.iter().map(|_| ArcSwapOption::empty()).collect(),
            sale,
            sku,
            price_minor,
            segments,
            sold_out,
            rebalancer,
        }
    }

    /// The segment where everything of a buyer lives.
    pub fn home(&self, buyer: &BuyerId) -> &Arc<SegmentRuntime> {
        &self.segments[self.home_index(buyer)]
    }

    /// Its place among [`Stock::segments`].
    pub fn home_index(&self, buyer: &BuyerId) -> usize {
        buyer.home(self.segments.len())
    }

    /// Whether units can be moved at all.
    pub fn is_cut(&self) -> bool {
        self.segments.len() > 1
    }

    /// Whether the sku is certainly empty, all of it, and this request certainly new.
    pub fn refuses(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        match &self.segments[..] {
            [only] => only.sold_out.refuses(buyer, request),
            _ => self.sold_out.is_empty() && self.home(buyer).sold_out.is_new(buyer, request),
        }
    }

    /// Learns from a snapshot of one of its segments.
    pub fn observe(&self, snapshot: &SegmentStatus, now_ms: u64) {
        let same = |segment: &Arc<SegmentRuntime>| segment.id == snapshot.spec.id;
        let Some(place) = self.segments.iter().position(same) else {
            return;
        };
        let segment = &self.segments[place];
        // "Sold out" is said only of a sale that is on: paused, frozen and ended ones have answers of their own.
        if snapshot.available == 0 && is_selling(snapshot, now_ms) {
            segment
                .sold_out
                .observe_empty(snapshot.epoch, snapshot.version, snapshot.accepted);
        } else {
            segment.observe_stocked(snapshot.epoch, snapshot.version);
        }
        segment
            .epoch
            .fetch_max(snapshot.epoch, std::sync::atomic::Ordering::AcqRel);
        self.readings[place].rcu(|known| match known {
            // Two readers may finish in the other order than they began.
            Some(known) if (known.epoch, known.version) > (snapshot.epoch, snapshot.version) => {
                Some(known.clone())
            }
            _ => Some(Arc::new(snapshot.clone())),
        });
    }

    /// The last reading of each segment; `None` while one of them was never read.
    pub fn readings(&self) -> Option<Vec<Arc<SegmentStatus>>> {
        self.readings.iter().map(ArcSwapOption::load_full).collect()
    }

    /// The last readings, summed; `None` while a segment was never read.
    pub fn counts(&self) -> Option<StockCounts> {
        let readings = self.readings()?;
        Some(StockCounts::sum(readings.iter().map(Arc::as_ref)))
    }

    /// Shows the last readings, and how many purchases are under way.
    pub fn show(&self) {
        let mut gauges = self.gauges.locked();
        let gauges = gauges.get_or_insert_with(|| Gauges::new(&self.sale, &self.sku));
        let waiting = self.segments.iter().map(|segment| segment.in_flight.len());
        gauges.waiting.set(waiting.sum::<usize>() as f64);
        if let Some(counts) = self.counts() {
            // In this order: a reading in between must never show more taken than there is.
            gauges.initial.set(counts.capacity as f64);
            gauges.available.set(counts.available as f64);
            gauges.reserved.set(counts.reserved as f64);
            gauges.sold.set(counts.sold as f64);
        }
    }

    /// Takes its series off `/metrics`: the sale is over.
    pub fn hide(&self) {
        *self.gauges.locked() = None;
    }
}

/// Whether a segment takes orders, as far as its gate and its window go.
pub fn is_selling(snapshot: &SegmentStatus, now_ms: u64) -> bool {
    let window = snapshot.spec.starts_at_ms..snapshot.spec.ends_at_ms;
    snapshot.gate == Gate::Open && window.contains(&now_ms)
}

/// Sales that go on are bounded by what operators create, so they and their skus may be labels.
struct Gauges {
    waiting: Gauge,
    initial: Gauge,
    available: Gauge,
    reserved: Gauge,
    sold: Gauge,
}

impl Gauges {
    fn new(sale: &SaleId, sku: &SkuId) -> Self {
        let labels = [("sale", sale.as_str()), ("sku", sku.as_str())];
        Self {
            waiting: series::gauge("penstock_sale_purchases_waiting", &labels),
            initial: series::gauge("penstock_stock_initial_units", &labels),
            available: series::gauge("penstock_stock_available_units", &labels),
            reserved: series::gauge("penstock_stock_reserved_units", &labels),
            sold: series::gauge("penstock_stock_sold_units", &labels),
        }
    }
}
