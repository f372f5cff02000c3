//! The sale engine: store, ledger and catalogue joined, as the API and the admin API use them.
//!
//! Sales live in the ledger; their segments are opened in the store; the catalogue is this node's copy. Several nodes share one
//! ledger, so every node re-reads it ([`SaleEngine::refresh`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    catalogue::{Catalogue, OpenSale, Segment},
    clock::WallClock,
    ids::{BuyerId, OrderId, RequestId, SaleId, SegmentId, SkuId},
    ledger::{Created, LedgerError, LedgerOrder, OrderLedger, OrderStatus, Restock, Restocked},
    metrics::PurchaseMetrics,
    purchase::{self, Outcome},
    sale::Sale,
    sold_out::SoldOut,
    store::{
        Gate, Lookup, OrderState, Position, Purchase, Snapshot, StockError, StockStore, StoredOrder,
    },
};

/// How often a node re-reads sales and counts: bounds how long it may say "sold out" after another node returned a unit.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// Accepted orders read from the store at once.
const TAIL_PAGE: usize = 1000;

/// Why the engine could not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store gave no answer.
    #[error(transparent)]
    Stock(#[from] StockError),
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
}

/// The engine; shared by the API, the admin API and the workers.
pub struct SaleEngine {
    store: Arc<dyn StockStore>,
    ledger: OrderLedger,
    catalogue: Catalogue,
    clock: WallClock,
    deadline: Duration,
    /// Rung when a batch accepted something, so that settlement does not wait for its next poll.
    accepted: Arc<tokio::sync::Notify>,
    /// Whether store and ledger answered the last refresh.
    is_ready: AtomicBool,
    /// All segments, for the settlement workers.
    segments: watch::Sender<Vec<SegmentId>>,
    /// Where lanes run: the control plane.
    runtime: tokio::runtime::Handle,
    pub(crate) metrics: PurchaseMetrics,
}

impl SaleEngine {
    /// Joins the parts and loads all sales. `accepted` is what the settlement workers listen to.
    pub async fn start(
        store: Arc<dyn StockStore>,
        ledger: OrderLedger,
        clock: WallClock,
        deadline: Duration,
        accepted: Arc<tokio::sync::Notify>,
    ) -> Result<Arc<Self>, EngineError> {
        let engine = Arc::new(Self {
            store,
            ledger,
            catalogue: Catalogue::default(),
            clock,
            deadline,
            accepted,
            is_ready: AtomicBool::new(false),
            segments: watch::Sender::new(Vec::new()),
            runtime: tokio::runtime::Handle::current(),
            metrics: PurchaseMetrics::new(),
        });
        engine.refresh().await?;
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

    /// All segments of this node's sales, now and as they change.
    pub fn segments(&self) -> watch::Receiver<Vec<SegmentId>> {
        self.segments.subscribe()
    }

    /// Whether store and ledger answered when they were last asked, half a second ago at most.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// The time, by the clock the engine was given.
    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Buys, or finds out what became of the same request earlier.
    pub async fn purchase(
        &self,
        segment: &Segment,
        buyer: BuyerId,
        request: RequestId,
        quantity: u32,
    ) -> Outcome {
        let order = OrderId::new(self.now_ms(), segment.id.tag(), rand::random());
        let fingerprint = fingerprint(&segment.id, quantity);
        purchase::buy(
            segment,
            Purchase {
                order,
                buyer,
                request,
                fingerprint,
                quantity,
            },
            self.deadline,
        )
        .await
    }

    /// Finds an order by its id.
    pub async fn order(&self, id: OrderId) -> Result<Option<FoundOrder>, EngineError> {
        if let Some(order) = self.ledger.order(id).await? {
            return Ok(Some(FoundOrder::Settled(Box::new(order))));
        }
        let Some(segment) = self.catalogue.segment_by_tag(id.segment_tag()) else {
            return Ok(None);
        };
        self.accepted_order(&segment.id, &Lookup::Order(id)).await
    }

    /// Finds what a request id led to.
    pub async fn order_by_request(
        &self,
        segment: &SegmentId,
        buyer: &BuyerId,
        request: &RequestId,
    ) -> Result<Option<FoundOrder>, EngineError> {
        let lookup = Lookup::Request(buyer.clone(), request.clone());
        let Some(FoundOrder::Accepted(segment, stored)) =
            self.accepted_order(segment, &lookup).await?
        else {
            return Ok(None);
        };
        match self.ledger.order(stored.order).await? {
            Some(order) => Ok(Some(FoundOrder::Settled(Box::new(order)))),
            None => Ok(Some(FoundOrder::Accepted(segment, stored))),
        }
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

    /// Creates a sale: in the ledger, in the store, in the catalogue. The same sale again is no error.
    pub async fn create_sale(&self, sale: Sale) -> Result<Created, EngineError> {
        let created = self.ledger.create_sale(&sale, self.now_ms()).await?;
        if !matches!(created, Created::Conflict) {
            self.refresh().await?;
        }
        Ok(created)
    }

    /// Moves the operator's gate of a sale; `false` if there is no such sale.
    pub async fn set_gate(&self, sale: &SaleId, gate: Gate) -> Result<bool, EngineError> {
        // The ledger first: a node that starts in between opens the segments with the gate the ledger names.
        if !self.ledger.set_gate(sale, gate).await? {
            return Ok(false);
        }
        self.refresh().await?;
        Ok(true)
    }

    /// Adds units: first to the ledger, whose guard has the last word, then to the store. The same restock id adds them once.
    pub async fn restock(
        &self,
        sale: &SaleId,
        restock: &Restock,
    ) -> Result<Restocked, EngineError> {
        let outcome = self.ledger.restock(sale, restock, self.now_ms()).await?;
        if matches!(outcome, Restocked::Added | Restocked::Repeated) {
            let segment = SegmentId::first(sale.clone(), restock.sku.clone());
            let snapshot = self
                .store
                .restock(&segment, &restock.id, restock.units)
                .await?;
            if let Some(segment) = self.catalogue.segment_by_tag(segment.tag()) {
                observe(&segment, &snapshot);
            }
        }
        Ok(outcome)
    }

    /// Tells the memory of "sold out" that a segment's units went back.
    pub async fn released(&self, segment: &SegmentId) {
        let Some(segment) = self.catalogue.segment_by_tag(segment.tag()) else {
            return;
        };
        match self.store.snapshot(&segment.id).await {
            Ok(snapshot) => observe(&segment, &snapshot),
            // The next refresh will see it.
            Err(error) => {
                tracing::debug!(segment = %segment.id, %error, "counts were not read after a release")
            }
        }
    }

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
                self.is_ready.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Re-reads all sales and counts; opens what is new, applies what was changed elsewhere.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        self.refresh_sales().await?;
        self.is_ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn refresh_sales(&self) -> Result<(), EngineError> {
        for sale in self.ledger.sales().await? {
            let known = self.catalogue.sale(&sale.id);
            match known {
                Some(open) if open.sale == sale => {
                    for segment in open.segments() {
                        self.catch_up(segment, &self.store.snapshot(&segment.id).await?)
                            .await?;
                    }
                }
                known => self.open_sale(sale, known.as_deref()).await?,
            }
        }
        Ok(())
    }

    async fn open_sale(&self, sale: Sale, known: Option<&OpenSale>) -> Result<(), EngineError> {
        let mut segments = Vec::with_capacity(sale.skus.len());
        for (spec, sku) in sale.segment_specs().into_iter().zip(&sale.skus) {
            let mut snapshot = self.store.open(&spec).await?;
            // A frozen segment is thawed by whoever froze it, not by a node that starts.
            if snapshot.gate != sale.gate && snapshot.gate != Gate::Frozen {
                snapshot = self.store.set_gate(&spec.id, sale.gate).await?;
            }
            for restock in self.missing_restocks(&sale.id, &sku.sku, &snapshot).await? {
                snapshot = self
                    .store
                    .restock(&spec.id, &restock.id, restock.units)
                    .await?;
            }
            let segment = match known.and_then(|open| open.segment(&sku.sku)) {
                Some(segment) => segment.clone(),
                None => self.new_segment(&spec.id, sku.price_minor, snapshot.epoch),
            };
            self.catch_up(&segment, &snapshot).await?;
            segments.push(segment);
        }
        self.catalogue.put(OpenSale::new(sale, segments));
        let all = self
            .catalogue
            .segments()
            .iter()
            .map(|segment| segment.id.clone())
            .collect();
        self.segments.send_replace(all);
        Ok(())
    }

    /// Restocks that the ledger has booked and the store may have missed: a crash between the two leaves units unsold.
    async fn missing_restocks(
        &self,
        sale: &SaleId,
        sku: &SkuId,
        snapshot: &Snapshot,
    ) -> Result<Vec<Restock>, EngineError> {
        let booked: Vec<Restock> = self
            .ledger
            .restocks(sale)
            .await?
            .into_iter()
            .filter(|restock| restock.sku == *sku)
            .collect();
        let units: u64 = booked.iter().map(|restock| restock.units).sum();
        Ok(if units == snapshot.restocked {
            Vec::new()
        } else {
            booked
        })
    }

    fn new_segment(&self, id: &SegmentId, price_minor: i64, epoch: u64) -> Arc<Segment> {
        let (lane, work) = purchase::lane();
        let segment = Arc::new(Segment {
            id: id.clone(),
            price_minor,
            epoch: AtomicU64::new(epoch),
            sold_out: SoldOut::default(),
            lane,
        });
        let accepted = self.accepted.clone();
        let ring = move || accepted.notify_waiters();
        self.runtime.spawn(purchase::run_lane(
            work,
            Arc::downgrade(&segment),
            self.store.clone(),
            ring,
        ));
        segment
    }

    /// Brings a segment's memory and gauges up to a snapshot.
    async fn catch_up(&self, segment: &Segment, snapshot: &Snapshot) -> Result<(), EngineError> {
        if segment.sold_out.known() < snapshot.accepted {
            let mut after = Position::default();
            loop {
                let page = self
                    .store
                    .accepted_after(&segment.id, after, TAIL_PAGE)
                    .await?;
                let Some((last, _)) = page.last() else { break };
                after = *last;
                for (_, order) in &page {
                    segment.sold_out.remember(&order.buyer, &order.request);
                }
            }
        }
        observe(segment, snapshot);
        Ok(())
    }
}

/// Learns from a snapshot and shows it.
fn observe(segment: &Segment, snapshot: &Snapshot) {
    if snapshot.available == 0 {
        segment
            .sold_out
            .observe_empty(snapshot.version, snapshot.accepted);
    } else {
        segment.sold_out.observe_stocked(snapshot.version);
    }
    segment.epoch.fetch_max(snapshot.epoch, Ordering::AcqRel);
    // Sales and skus are bounded by what operators create, so they may be labels of gauges (and of nothing else).
    let labels = [
        ("sale", snapshot.spec.id.sale.to_string()),
        ("sku", snapshot.spec.id.sku.to_string()),
    ];
    let initial = snapshot.spec.stock + snapshot.restocked;
    metrics::gauge!("penstock_stock_initial_units", &labels).set(initial as f64);
    metrics::gauge!("penstock_stock_available_units", &labels).set(snapshot.available as f64);
    metrics::gauge!("penstock_stock_reserved_units", &labels).set(snapshot.reserved as f64);
    metrics::gauge!("penstock_stock_sold_units", &labels).set(snapshot.sold as f64);
}

/// What a request asks for, as a number that stays the same over versions and nodes: the first 8 bytes of SHA-256.
fn fingerprint(segment: &SegmentId, quantity: u32) -> u64 {
    let text = format!("{}:{}:{quantity}", segment.sale, segment.sku);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    u64::from_be_bytes(
        digest.as_ref()[..8]
            .try_into()
            .expect("SHA-256 has 32 bytes"),
    )
}

/// The ledger's word for a store's state, for orders that are not in the ledger yet.
pub fn status_of(state: OrderState) -> OrderStatus {
    match state {
        OrderState::Reserved => OrderStatus::Reserved,
        OrderState::Sold => OrderStatus::Paid,
        OrderState::Released => OrderStatus::Released,
    }
}
