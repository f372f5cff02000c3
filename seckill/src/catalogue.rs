//! The sales this node knows, as a snapshot the data plane reads without a lock.
//!
//! [`crate::engine`] replaces the whole snapshot when a sale is created or changed; a request holds its `Arc` for as long as
//! it needs it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ahash::AHashMap;
use arc_swap::ArcSwap;

use crate::{
    ids::{SaleId, SegmentId, SkuId},
    purchase::Lane,
    sale::Sale,
    sold_out::SoldOut,
};

/// One segment as requests see it.
pub struct Segment {
    /// Which segment.
    pub id: SegmentId,
    /// Its tag in order ids.
    pub tag: u32,
    /// Price of one unit, in minor units of the sale's currency.
    pub price_minor: i64,
    /// The epoch that calls carry; raised when the store says that it has moved on.
    pub epoch: AtomicU64,
    /// The memory of "sold out".
    pub sold_out: SoldOut,
    /// Where purchases wait to share one store call.
    pub lane: Lane,
}

impl Segment {
    /// The epoch in force as far as this node knows.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

/// One sale with its segments.
pub struct OpenSale {
    /// The sale.
    pub sale: Sale,
    /// Whether every segment is open in the store; if not, opening is tried again.
    pub is_whole: bool,
    segments: AHashMap<SkuId, Arc<Segment>>,
}

impl OpenSale {
    /// Joins a sale with its segments.
    pub fn new(sale: Sale, segments: Vec<Arc<Segment>>, is_whole: bool) -> Self {
        let segments = segments
            .into_iter()
            .map(|segment| (segment.id.sku.clone(), segment))
            .collect();
        Self {
            sale,
            is_whole,
            segments,
        }
    }

    /// The segment of one sku.
    pub fn segment(&self, sku: &SkuId) -> Option<&Arc<Segment>> {
        self.segments.get(sku)
    }

    /// All segments, in no order.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.values()
    }
}

/// The sales of this node.
#[derive(Default)]
pub struct Catalogue {
    inner: ArcSwap<Inner>,
}

#[derive(Default, Clone)]
struct Inner {
    sales: AHashMap<SaleId, Arc<OpenSale>>,
    by_tag: AHashMap<u32, Arc<Segment>>,
}

impl Catalogue {
    /// One sale.
    pub fn sale(&self, id: &SaleId) -> Option<Arc<OpenSale>> {
        self.inner.load().sales.get(id).cloned()
    }

    /// The segment that an order id names.
    pub fn segment_by_tag(&self, tag: u32) -> Option<Arc<Segment>> {
        self.inner.load().by_tag.get(&tag).cloned()
    }

    /// All sales, in no order.
    pub fn sales(&self) -> Vec<Arc<OpenSale>> {
        self.inner.load().sales.values().cloned().collect()
    }

    /// All segments, in no order.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        let inner = self.inner.load();
        inner
            .sales
            .values()
            .flat_map(|open| open.segments().cloned())
            .collect()
    }

    /// Adds a sale or takes over its changed form.
    pub fn put(&self, sale: OpenSale) {
        let sale = Arc::new(sale);
        self.inner.rcu(|inner| {
            let mut next = Inner::clone(inner);
            for segment in sale.segments() {
                next.by_tag.insert(segment.tag, segment.clone());
            }
            next.sales.insert(sale.sale.id.clone(), sale.clone());
            next
        });
    }
}
