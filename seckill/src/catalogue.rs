//! The sales this node knows, as a snapshot the data plane reads without a lock.
//!
//! [`crate::engine`] replaces the whole snapshot when a sale is created or changed; a request holds its `Arc` for as long as
//! it needs it.

use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use arc_swap::ArcSwap;

use crate::{
    ids::{SaleId, SegmentId, SkuId},
    metrics::SaleMetrics,
    purchase::Carts,
    sale::Sale,
    sku_stock::{SegmentRuntime, Stock},
};

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
    /// What is counted of it; `None` if it is over.
    pub metrics: Option<SaleMetrics>,
    /// Made when first asked for, if the sale is over: nobody may ever ask.
    stocks: OnceLock<Stocks>,
    make: Make,
}

type Stocks = AHashMap<SkuId, Arc<Stock>>;
type Make = Box<dyn Fn(&Sale) -> Vec<Arc<Stock>> + Send + Sync>;

impl OpenSale {
    /// Joins a sale with its stocks.
    pub fn new(sale: Sale, stocks: Vec<Arc<Stock>>, carts: Arc<Carts>, is_whole: bool) -> Self {
        Self {
            is_whole,
            is_over: false,
            metrics: Some(SaleMetrics::new(sale.id.as_str())),
            carts,
            sale,
            stocks: OnceLock::from(by_sku(stocks)),
            make: Box::new(|_| Vec::new()),
        }
    }

    /// A sale for late reads only. Stocks that there are none of yet are made when somebody asks for one.
    pub fn over(
        sale: Sale,
        stocks: Option<Vec<Arc<Stock>>>,
        make: impl Fn(&Sale) -> Vec<Arc<Stock>> + Send + Sync + 'static,
        carts: Arc<Carts>,
    ) -> Self {
        Self {
            sale,
            is_whole: true,
            is_over: true,
            metrics: None,
            carts,
            stocks: stocks.map(by_sku).map(OnceLock::from).unwrap_or_default(),
            make: Box::new(make),
        }
    }

    fn by_sku(&self) -> &Stocks {
        self.stocks.get_or_init(|| by_sku((self.make)(&self.sale)))
    }

    /// Whether its stocks were made.
    pub fn has_stocks(&self) -> bool {
        self.stocks.get().is_some()
    }

    /// The stock of one sku.
    pub fn stock(&self, sku: &SkuId) -> Option<&Arc<Stock>> {
        self.by_sku().get(sku)
    }

    /// All stocks, in no order.
    pub fn stocks(&self) -> impl Iterator<Item = &Arc<Stock>> {
        self.by_sku().values()
    }

    /// All segments, in no order.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<SegmentRuntime>> {
        self.stocks().flat_map(|stock| &stock.segments)
    }
}

fn by_sku(stocks: Vec<Arc<Stock>>) -> Stocks {
    let stocks = stocks.into_iter();
    stocks.map(|stock| (stock.sku.clone(), stock)).collect()
}

/// The sales of this node.
#[derive(Default)]
pub struct Catalogue {
    inner: ArcSwap<Inner>,
}

#[derive(Default, Clone)]
struct Inner {
    sales: AHashMap<SaleId, Arc<OpenSale>>,
    by_tag: AHashMap<u32, SegmentId>,
    replaced: u64,
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
    pub fn segment_by_tag(&self, tag: u32) -> Option<SegmentId> {
        self.inner.load().by_tag.get(&tag).cloned()
    }

    /// All sales, in no order.
    pub fn sales(&self) -> Vec<Arc<OpenSale>> {
        self.inner.load().sales.values().cloned().collect()
    }

    /// The segments of all sales that are not over, in no order.
    pub fn segments(&self) -> Vec<Arc<SegmentRuntime>> {
        let inner = self.inner.load();
        let live = inner.sales.values().filter(|open| !open.is_over);
        live.flat_map(|open| open.segments().cloned()).collect()
    }

    /// How often it was replaced: each time costs a copy of it.
    pub fn replaced(&self) -> u64 {
        self.inner.load().replaced
    }

    /// Adds a sale or takes over its changed form.
    pub fn put(&self, sale: OpenSale) {
        self.put_all(vec![sale]);
    }

    /// Adds sales or takes over their changed forms, all in one copy.
    pub fn put_all(&self, sales: Vec<OpenSale>) {
        if sales.is_empty() {
            return;
        }
        let sales: Vec<_> = sales.into_iter().map(Arc::new).collect();
        let segments = sales.iter().flat_map(|open| open.sale.segment_ids());
        let tags: Vec<_> = segments.map(|segment| (segment.tag(), segment)).collect();
        self.inner.rcu(|inner| {
            let mut next = Inner::clone(inner);
            next.replaced += 1;
            next.by_tag.extend(tags.iter().cloned());
            let named = sales
                .iter()
                .map(|open| (open.sale.id.clone(), open.clone()));
            next.sales.extend(named);
            next
        });
    }
}
