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
    purchase::{Carts, Lane},
    sale::Sale,
    sold_out::{SkuSoldOut, SoldOut},
    stock::Stock,
};

/// One segment as requests see it.
pub struct Segment {
    /// Which segment.
    pub id: SegmentId,
    /// Its tag in order ids.
    pub tag: u32,
    /// The epoch that calls carry; raised when the store says that it has moved on.
    pub epoch: AtomicU64,
    /// The memory of "sold out", of this segment alone.
    pub sold_out: SoldOut,
    /// The memory of all segments of the sku together.
    pub sku_sold_out: Arc<SkuSoldOut>,
    /// Where purchases wait to share one store call.
    pub lane: Lane,
}

impl Segment {
    /// A segment with an empty memory, of which nothing is known but that it was opened.
    pub fn new(id: SegmentId, sku_sold_out: Arc<SkuSoldOut>, lane: Lane) -> Self {
        Self {
            tag: id.tag(),
            id,
            // The store's answer to the first call corrects it.
            epoch: AtomicU64::new(1),
            sold_out: SoldOut::default(),
            sku_sold_out,
            lane,
        }
    }

    /// The epoch in force as far as this node knows.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// There are units at this version of this epoch.
    pub fn observe_stocked(&self, epoch: u64, version: u64) {
        if self.sold_out.observe_stocked(epoch, version) {
            self.sku_sold_out.news();
        }
    }
}

/// One sale with its stocks.
pub struct OpenSale {
    /// The sale.
    pub sale: Sale,
    /// Whether every segment is open in the store; if not, opening is tried again.
    pub is_whole: bool,
    /// Whether its window and the time to pay are over and all its orders are in the ledger: then it is kept for late reads only.
    pub is_over: bool,
    /// Where its carts are decided.
    pub carts: Arc<Carts>,
    stocks: AHashMap<SkuId, Arc<Stock>>,
}

impl OpenSale {
    /// Joins a sale with its stocks.
    pub fn new(sale: Sale, stocks: Vec<Arc<Stock>>, carts: Arc<Carts>, is_whole: bool) -> Self {
        let stocks = stocks
            .into_iter()
            .map(|stock| (stock.sku.clone(), stock))
            .collect();
        Self {
            sale,
            is_whole,
            is_over: false,
            carts,
            stocks,
        }
    }

    /// The same sale, for late reads only.
    pub fn over(sale: Sale, stocks: Vec<Arc<Stock>>, carts: Arc<Carts>) -> Self {
        Self {
            is_over: true,
            ..Self::new(sale, stocks, carts, true)
        }
    }

    /// The stock of one sku.
    pub fn stock(&self, sku: &SkuId) -> Option<&Arc<Stock>> {
        self.stocks.get(sku)
    }

    /// All stocks, in no order.
    pub fn stocks(&self) -> impl Iterator<Item = &Arc<Stock>> {
        self.stocks.values()
    }

    /// All segments, in no order.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.stocks.values().flat_map(|stock| &stock.segments)
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

    /// The stock that a segment is a part of.
    pub fn stock_of(&self, segment: &SegmentId) -> Option<Arc<Stock>> {
        let inner = self.inner.load();
        inner.sales.get(&segment.sale)?.stock(&segment.sku).cloned()
    }

    /// The segment that an order id names.
    pub fn segment_by_tag(&self, tag: u32) -> Option<Arc<Segment>> {
        self.inner.load().by_tag.get(&tag).cloned()
    }

    /// All sales, in no order.
    pub fn sales(&self) -> Vec<Arc<OpenSale>> {
        self.inner.load().sales.values().cloned().collect()
    }

    /// The segments of all sales that are not over, in no order.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        let inner = self.inner.load();
        let live = inner.sales.values().filter(|open| !open.is_over);
        live.flat_map(|open| open.segments().cloned()).collect()
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
