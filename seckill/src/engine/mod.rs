//! The sale engine: store, ledger and catalogue joined, as the API and the admin API use them.
//!
//! Sales live in the ledger; their segments are opened in the store; the catalogue is this node's copy. Several nodes share one
//! ledger, so every node re-reads it (`refresh.rs`).

mod buying;
mod lottery;
mod opening;
mod over;
mod refresh;
mod schedule;
mod slots;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use self::opening::StockMaker;
pub use self::{
    lottery::{DrawRefused, Drawn},
    slots::new_code,
};

use ahash::{AHashMap, AHashSet};
use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::join_all;
use metrics::Gauge;
use ring::hmac;
use stock::{
    Capabilities, Gate, Lookup, Metadata, SegmentStatus, StockError, StockStore, StoredOrder,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    admission::AdmissionBook,
    bells::Bells,
    catalogue::{Catalogue, OpenSale},
    clock::WallClock,
    entitlement::TokenKeys,
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    ledger::{
        Created, GateMoved, LedgerError, LedgerOrder, OrderLedger, Restock, Restocked, Standing,
    },
    locks::Locked,
    metrics::PurchaseMetrics,
    sale::{Sale, SaleState},
    sku_stock::Stock,
    transfer::{Transfers, plan},
};

/// Why the engine could not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store gave no answer.
    #[error(transparent)]
    Stock(#[from] StockError),
    /// Two segments would share the short tag that order ids carry. The operator chooses another sale id.
    #[error("segment {wanted} has the tag of {by}: choose another sale id")]
    TagTaken {
        /// The segment to be made.
        wanted: SegmentId,
        /// The one that has the tag.
        by: SegmentId,
    },
    /// A node that has just started sells before it has read what is over.
    #[error("sales that are over are still being read")]
    OverUnread,
    /// The change is in the ledger, and so will be in force; the store or this node does not have it yet. The next refresh in which they
    /// answer brings it there.
    #[error("in the ledger only: {0}")]
    Pending(#[source] Box<EngineError>),
}

/// What went wrong after the ledger had the change.
fn pending(error: impl Into<EngineError>) -> EngineError {
    EngineError::Pending(Box::new(error.into()))
}

/// An order wherever it stands: in the ledger, or still on its way there.
#[derive(Debug, Clone)]
pub enum FoundOrder {
    /// The ledger knows it.
    Settled(Box<LedgerOrder>),
    /// The store has accepted it, the ledger does not know it yet.
    Accepted(SegmentId, StoredOrder),
}

impl FoundOrder {
    /// Who bought.
    pub fn buyer(&self) -> &BuyerId {
        match self {
            Self::Settled(order) => &order.buyer,
            Self::Accepted(_, order) => &order.buyer,
        }
    }

    /// Its id.
    pub fn id(&self) -> OrderId {
        match self {
            Self::Settled(order) => order.order,
            Self::Accepted(_, order) => order.order,
        }
    }

    /// Where it stands, comparable with other readings of it.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Settled(order) => order.standing(),
            Self::Accepted(_, order) => Standing::in_store(order.state),
        }
    }

    /// Of which segment.
    pub fn segment(&self) -> &SegmentId {
        match self {
            Self::Settled(order) => &order.segment,
            Self::Accepted(segment, _) => segment,
        }
    }

    /// How many units.
    pub fn quantity(&self) -> u32 {
        match self {
            Self::Settled(order) => order.quantity,
            Self::Accepted(_, order) => order.quantity,
        }
    }

    /// What its purchase brought for the shop.
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Settled(order) => order.metadata.as_ref(),
            Self::Accepted(_, order) => order.metadata.as_ref(),
        }
    }
}

/// What answered the last refresh; if something did not, why.
#[derive(Debug, Clone)]
pub struct Health {
    /// The ledger's database.
    pub ledger: Result<(), String>,
    /// All of the stock store.
    pub store: Result<(), String>,
    /// Ledger and store, for one sale at least.
    pub sales: Result<(), String>,
}

impl Health {
    fn unread() -> Self {
        let unread = || Err("it has not been read yet".to_owned());
        Self {
            ledger: unread(),
            store: unread(),
            sales: unread(),
        }
    }
}

/// The engine; shared by the API, the admin API and the workers.
pub struct SaleEngine {
    store: Arc<dyn StockStore>,
    capabilities: Capabilities,
    ledger: OrderLedger,
    catalogue: Catalogue,
    /// Whether the catalogue has the sales that are over.
    over_read: watch::Sender<bool>,
    admission: AdmissionBook,
    /// The keys of entitlement tokens.
    tokens: ArcSwap<TokenKeys>,
    /// The key of the hashes of one-time codes.
    checkin_key: ArcSwapOption<hmac::Key>,
    /// What is free of the skus of sales of slots. A `std` lock, held for a copy of one sale's.
    free: Mutex<AHashMap<SaleId, AHashMap<SkuId, u64>>>,
    clock: WallClock,
    deadline: Duration,
    makes: StockMaker,
    /// Held while sales are opened or changed: an older reading of the ledger must not overtake a newer one, or a pause could be
    /// undone by the refresh that began before it. When all sales were last read, over ones included.
    changing: tokio::sync::Mutex<Option<Instant>>,
    /// What answered the last refresh. A `std` lock, held for a copy.
    health: Mutex<Health>,
    /// Sales whose every segment was open at the last refresh. A `std` lock, held for one look.
    warm: Mutex<AHashSet<SaleId>>,
    /// The states of sales that go on, as they are shown. A `std` lock, held to set one sale's.
    shown: Mutex<AHashMap<SaleId, [Gauge; SaleState::ALL.len()]>>,
    /// Sales that are over and whose store was asked to throw their orders away. A `std` lock, held for one look.
    retired: Mutex<AHashSet<SaleId>>,
    /// All segments, for the settlement workers.
    segments: watch::Sender<Vec<SegmentId>>,
    pub(crate) metrics: PurchaseMetrics,
}

impl SaleEngine {
    /// Joins the parts and loads the sales that go on; those that are over are read by [`SaleEngine::run`]. `accepted` is what the settlement workers listen to.
    pub async fn start(
        store: Arc<dyn StockStore>,
        ledger: OrderLedger,
        clock: WallClock,
        deadline: Duration,
        accepted: Arc<Bells>,
    ) -> Result<Arc<Self>, EngineError> {
        let engine = Arc::new(Self {
            makes: StockMaker {
                accepted,
                transfers: Transfers::new(store.clone(), ledger.clone(), clock.clone()),
                runtime: tokio::runtime::Handle::current(),
            },
            capabilities: store.capabilities(),
            store,
            ledger,
            catalogue: Catalogue::default(),
            over_read: watch::Sender::new(false),
            admission: AdmissionBook::default(),
            tokens: ArcSwap::default(),
            checkin_key: ArcSwapOption::empty(),
            free: Mutex::default(),
            clock,
            deadline,
            changing: tokio::sync::Mutex::new(None),
            health: Mutex::new(Health::unread()),
            warm: Mutex::default(),
            shown: Mutex::default(),
            retired: Mutex::default(),
            segments: watch::Sender::new(Vec::new()),
            metrics: PurchaseMetrics::default(),
        });
        engine.read_first().await?;
        Ok(engine)
    }

    /// The stock store.
    pub fn store(&self) -> &Arc<dyn StockStore> {
        &self.store
    }

    /// The order ledger.
    pub fn ledger(&self) -> &OrderLedger {
        &self.ledger
    }

    /// The sales of this node.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// A sale of this node. An error while it may be one of those that are over and were not read yet.
    pub fn sale(&self, id: &SaleId) -> Result<Option<Arc<OpenSale>>, EngineError> {
        // Asked first: a sale that is read meanwhile is found.
        let over_read = *self.over_read.borrow();
        match self.catalogue.sale(id) {
            None if !over_read => Err(EngineError::OverUnread),
            found => Ok(found),
        }
    }

    /// Who may buy, as this node knows it.
    pub fn admission(&self) -> &AdmissionBook {
        &self.admission
    }

    /// The keys of entitlement tokens.
    pub fn tokens(&self) -> Arc<TokenKeys> {
        self.tokens.load_full()
    }

    /// Takes these keys instead of those before.
    pub fn use_tokens(&self, keys: impl Into<Arc<TokenKeys>>) {
        self.tokens.store(keys.into());
    }

    /// All segments of this node's sales, now and as they change.
    pub fn segments(&self) -> watch::Receiver<Vec<SegmentId>> {
        self.segments.subscribe()
    }

    /// What answered when it was last asked, two seconds ago at most.
    pub fn health(&self) -> Health {
        self.health.locked().clone()
    }

    /// The time, by the clock the engine was given.
    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Finds an order by its id.
    pub async fn order(&self, id: OrderId) -> Result<Option<FoundOrder>, EngineError> {
        let settled = |order| FoundOrder::Settled(Box::new(order));
        if let Some(order) = self.ledger.order(id).await? {
            return Ok(Some(settled(order)));
        }
        let over_read = *self.over_read.borrow();
        let Some(segment) = self.catalogue.segment_by_tag(id.segment_tag()) else {
            return match over_read {
                true => Ok(None),
                false => Err(EngineError::OverUnread),
            };
        };
        let accepted = self.accepted_order(&segment, &Lookup::Order(id)).await?;
        // The store is read before the ledger's last word, never after it: the order may have been settled and released in
        // between, and the store would still say reserved, or have forgotten it.
        Ok(self.ledger.order(id).await?.map(settled).or(accepted))
    }

    /// Finds what a request id led to.
    pub async fn order_by_request(
        &self,
        segment: &SegmentId,
        buyer: &BuyerId,
        request: &RequestId,
    ) -> Result<Option<FoundOrder>, EngineError> {
        let lookup = Lookup::Request(buyer.clone(), request.clone());
        let accepted = self.accepted_order(segment, &lookup).await?;
        // The ledger has the last word, remembers what a store may have lost, and if the store took the request up a second time
        // after that, the ledger's order is the one that stands.
        let settled = self
            .ledger
            .order_by_request(&segment.sale, &segment.sku, buyer, request)
            .await?;
        Ok(settled
            .map(|order| FoundOrder::Settled(Box::new(order)))
            .or(accepted))
    }

    async fn accepted_order(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<FoundOrder>, EngineError> {
        match self.store.find(segment, lookup).await {
            Ok(found) => Ok(found.map(|order| FoundOrder::Accepted(segment.clone(), order))),
            Err(StockError::NotOpen(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the store can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Creates a sale: in the ledger and, unless it is a draft, in the store and in the catalogue. The same sale again is no
    /// error.
    pub async fn create_sale(&self, sale: Sale) -> Result<Created, EngineError> {
        if !*self.over_read.borrow() {
            // Their tags are taken.
            self.refresh().await?;
        }
        self.check_tags(&sale)?;
        let created = self.ledger.create_sale(&sale, self.now_ms()).await?;
        if !matches!(created, Created::Conflict) {
            self.refresh_sale(&sale.id).await.map_err(pending)?;
        }
        Ok(created)
    }

    /// Whether every segment of a sale can have its tag.
    fn check_tags(&self, sale: &Sale) -> Result<(), EngineError> {
        let mut own = HashMap::new();
        for spec in sale.segment_specs() {
            let tag = spec.id.tag();
            let others = self.catalogue.segment_by_tag(tag);
            let others = others.filter(|other| *other != spec.id);
            if let Some(by) = others.or_else(|| own.insert(tag, spec.id.clone())) {
                return Err(EngineError::TagTaken {
                    wanted: spec.id,
                    by,
                });
            }
        }
        Ok(())
    }

    /// Moves the operator's gate of a sale. A closed sale stays closed.
    pub async fn set_gate(&self, sale: &SaleId, gate: Gate) -> Result<GateMoved, EngineError> {
        // The ledger first: a node that starts in between opens the segments with the gate the ledger names.
        let moved = self.ledger.move_gate(sale, gate).await?;
        if moved == GateMoved::Set {
            self.push_gate(sale, gate).await;
            self.refresh_sale(sale).await.map_err(pending)?;
        }
        Ok(moved)
    }

    /// Adds units: first to the ledger, whose guard has the last word, then to the store, each segment its share. The same restock
    /// id adds them once; a share that does not reach its segment is brought by the next refresh.
    pub async fn restock(&self, sale: &Sale, restock: &Restock) -> Result<Restocked, EngineError> {
        let outcome = self
            .ledger
            .restock(&sale.id, restock, self.now_ms())
            .await?;
        if matches!(outcome, Restocked::Added | Restocked::Repeated) {
            let brought = self.restock_segments(sale, restock).await;
            brought.map_err(pending)?;
        }
        Ok(outcome)
    }

    /// Gives each segment its share, once. A segment that does not answer does not keep the others from theirs.
    async fn restock_segments(&self, sale: &Sale, restock: &Restock) -> Result<(), StockError> {
        let shares = restock.shares(sale);
        let shared = shares.iter().map(|(segment, units)| async move {
            let snapshot = self.store.restock(segment, &restock.id, *units).await?;
            self.observe(&snapshot);
            Ok(())
        });
        join_all(shared).await.into_iter().collect()
    }

    /// Tells the memory of "sold out" that a segment's units went back.
    pub async fn released(&self, segment: &SegmentId) {
        match self.store.snapshot(segment).await {
            Ok(snapshot) => {
                self.observe(&snapshot);
                if let Some(stock) = self.catalogue.stock_of(segment) {
                    balance(&stock);
                }
            }
            // The next refresh will see it.
            Err(error) => {
                tracing::debug!(%segment, %error, "counts were not read after a release")
            }
        }
    }

    /// Learns from a snapshot and shows it.
    fn observe(&self, snapshot: &SegmentStatus) {
        if let Some(stock) = self.catalogue.stock_of(&snapshot.spec.id) {
            stock.observe(snapshot, self.now_ms());
            stock.show();
            self.note_free(&stock);
        }
    }
}

/// Has an empty segment fed if another has units to spare.
fn balance(stock: &Stock) {
    let Some(readings) = stock.readings().filter(|_| stock.is_cut()) else {
        return;
    };
    let available: Vec<_> = readings.iter().map(|one| Some(one.available)).collect();
    if plan::balance(&available).is_some() {
        stock.rebalancer.balance();
    }
}
