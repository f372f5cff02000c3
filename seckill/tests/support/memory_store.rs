//! A stock store in memory whose clock, faults and lies the test controls. It admits whatever it is told to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use seckill::{
    clock::WallClock,
    ids::{OrderId, SegmentId},
};
use stock::{
    Capabilities, CartLine, CartVerdict, Durability, Gate, Lookup, Moves, OrderQueue, OrderState,
    Position, Purchase, QueueDepth, QueueEntry, Rebuild, SegmentSpec, SegmentStatus, Segments,
    Selling, StockError, StockMoves, StoredOrder, Transition, Verdict, Wanted,
};

struct Waiting {
    position: Position,
    order: Result<StoredOrder, String>,
    deliveries: u32,
    /// Who has it, since when.
    taken: Option<(String, u64)>,
}

struct Segment {
    snapshot: SegmentStatus,
    orders: HashMap<OrderId, StoredOrder>,
    queue: VecDeque<Waiting>,
    next: u64,
}

pub struct MemoryStore {
    clock: WallClock,
    segments: Mutex<HashMap<SegmentId, Segment>>,
    /// Every call fails while this is set.
    pub is_down: AtomicBool,
    /// Calls about a segment.
    pub calls: AtomicUsize,
    /// Calls of `ack`.
    pub acknowledgements: AtomicUsize,
    /// The next pull panics, taking its worker with it.
    pub panics: AtomicBool,
    /// Happens between the next look for an order and its answer.
    pub meanwhile: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl MemoryStore {
    pub fn new(clock: WallClock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            segments: Mutex::default(),
            is_down: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            acknowledgements: AtomicUsize::new(0),
            panics: AtomicBool::new(false),
            meanwhile: Mutex::default(),
        })
    }

    fn with<T>(
        &self,
        id: &SegmentId,
        act: impl FnOnce(&mut Segment) -> T,
    ) -> Result<T, StockError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(StockError::Unavailable("down by the test".to_owned()));
        }
        let mut segments = self.segments.lock().unwrap();
        segments
            .get_mut(id)
            .map(act)
            .ok_or_else(|| StockError::NotOpen(id.clone()))
    }

    /// Accepts an order as it is, whatever the stock says.
    pub fn accept(&self, id: &SegmentId, order: StoredOrder) {
        self.with(id, |segment| {
            segment.snapshot.accepted += 1;
            segment.snapshot.version += 1;
            segment.snapshot.reserved += u64::from(order.quantity);
            segment.snapshot.available = segment
                .snapshot
                .available
                .saturating_sub(u64::from(order.quantity));
            segment.orders.insert(order.order, order.clone());
            segment.push(Ok(order));
        })
        .unwrap();
    }

    /// Puts an entry on the queue that cannot be read.
    pub fn poison(&self, id: &SegmentId) {
        self.with(id, |segment| segment.push(Err("not an order\0".to_owned())))
            .unwrap();
    }

    /// Changes the counts behind everybody's back.
    pub fn corrupt(&self, id: &SegmentId, change: impl FnOnce(&mut SegmentStatus)) {
        self.with(id, |segment| change(&mut segment.snapshot))
            .unwrap();
    }
}

impl Segment {
    fn push(&mut self, order: Result<StoredOrder, String>) {
        self.next += 1;
        let position = Position {
            major: self.next,
            minor: 0,
        };
        self.queue.push_back(Waiting {
            position,
            order,
            deliveries: 0,
            taken: None,
        });
    }
}

#[async_trait]
impl Segments for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durability: &Durability::ALL,
            carts: false,
        }
    }

    async fn reach(&self) -> Result<(), StockError> {
        Ok(())
    }

    async fn open(&self, spec: &SegmentSpec) -> Result<SegmentStatus, StockError> {
        let new = || Segment {
            snapshot: SegmentStatus {
                spec: spec.clone(),
                gate: Gate::Open,
                epoch: 1,
                version: 1,
                available: spec.stock,
                reserved: 0,
                sold: 0,
                restocked: 0,
                withdrawn: 0,
                accepted: 0,
                needs_rebuild: false,
            },
            orders: HashMap::new(),
            queue: VecDeque::new(),
            next: 0,
        };
        Ok(self
            .segments
            .lock()
            .unwrap()
            .entry(spec.id.clone())
            .or_insert_with(new)
            .snapshot
            .clone())
    }

    async fn snapshot(&self, id: &SegmentId) -> Result<SegmentStatus, StockError> {
        self.with(id, |segment| segment.snapshot.clone())
    }

    async fn set_gate(&self, id: &SegmentId, gate: Gate) -> Result<SegmentStatus, StockError> {
        self.with(id, |segment| {
            segment.snapshot.gate = gate;
            segment.snapshot.clone()
        })
    }
}

#[async_trait]
impl Selling for MemoryStore {
    async fn buy(
        &self,
        _: &SegmentId,
        _: u64,
        _: Purchase,
        _: Wanted,
    ) -> Result<Verdict, StockError> {
        Err(StockError::Unavailable("tests call accept".to_owned()))
    }

    async fn buy_many(
        &self,
        _: &SegmentId,
        _: u64,
        _: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError> {
        Err(StockError::Unavailable("tests call accept".to_owned()))
    }

    async fn buy_cart(&self, _lines: Vec<CartLine>) -> Result<CartVerdict, StockError> {
        Err(StockError::Unavailable("carts are not built yet".into()))
    }

    async fn release_many(
        &self,
        id: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError> {
        self.with(id, |segment| {
            let release = |id: &OrderId| {
                let Some(order) = segment.orders.get_mut(id) else {
                    return Transition::Unknown;
                };
                match order.state {
                    OrderState::Released => Transition::AlreadyReleased,
                    OrderState::Sold => Transition::AlreadySold,
                    OrderState::Reserved => {
                        order.state = OrderState::Released;
                        segment.snapshot.version += 1;
                        segment.snapshot.reserved -= u64::from(order.quantity);
                        segment.snapshot.available += u64::from(order.quantity);
                        Transition::Done
                    }
                }
            };
            orders.iter().map(release).collect()
        })
    }

    async fn confirm_many(
        &self,
        id: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError> {
        self.with(id, |segment| {
            let confirm = |id: &OrderId| {
                let Some(order) = segment.orders.get_mut(id) else {
                    return Transition::Unknown;
                };
                match order.state {
                    OrderState::Released => Transition::AlreadyReleased,
                    OrderState::Sold => Transition::AlreadySold,
                    OrderState::Reserved => {
                        order.state = OrderState::Sold;
                        segment.snapshot.version += 1;
                        segment.snapshot.reserved -= u64::from(order.quantity);
                        segment.snapshot.sold += u64::from(order.quantity);
                        Transition::Done
                    }
                }
            };
            orders.iter().map(confirm).collect()
        })
    }

    async fn find(
        &self,
        id: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError> {
        let found = self.with(id, |segment| match lookup {
            Lookup::Order(order) => segment.orders.get(order).cloned(),
            Lookup::Request(buyer, request) => segment
                .orders
                .values()
                .find(|order| order.buyer == *buyer && order.request == *request)
                .cloned(),
        });
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        found
    }
}

#[async_trait]
impl Moves for MemoryStore {
    async fn restock(
        &self,
        id: &SegmentId,
        _: &str,
        units: u64,
    ) -> Result<SegmentStatus, StockError> {
        self.with(id, |segment| {
            segment.snapshot.restocked += units;
            segment.snapshot.available += units;
            segment.snapshot.clone()
        })
    }

    async fn withdraw(
        &self,
        _segment: &SegmentId,
        _withdrawal_id: &str,
        _units: u64,
    ) -> Result<u64, StockError> {
        Err(StockError::Unavailable(
            "transfers are not built yet".into(),
        ))
    }
}

#[async_trait]
impl OrderQueue for MemoryStore {
    async fn pull(
        &self,
        id: &SegmentId,
        consumer: &str,
        max: usize,
        reclaim_after: Duration,
    ) -> Result<Vec<QueueEntry>, StockError> {
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "panic asked for by the test"
        );
        let now_ms = (self.clock)();
        self.with(id, |segment| {
            let epoch = segment.snapshot.epoch;
            let is_due = |entry: &&mut Waiting| match &entry.taken {
                None => true,
                Some((_, since)) => u128::from(now_ms - since) >= reclaim_after.as_millis(),
            };
            let hand_out = |entry: &mut Waiting| {
                entry.taken = Some((consumer.to_owned(), now_ms));
                entry.deliveries += 1;
                QueueEntry {
                    position: entry.position,
                    epoch,
                    deliveries: entry.deliveries,
                    order: entry.order.clone(),
                }
            };
            segment
                .queue
                .iter_mut()
                .filter(is_due)
                .take(max)
                .map(hand_out)
                .collect()
        })
    }

    async fn ack(&self, id: &SegmentId, positions: &[Position]) -> Result<(), StockError> {
        self.acknowledgements.fetch_add(1, Ordering::SeqCst);
        self.with(id, |segment| {
            segment
                .queue
                .retain(|entry| !positions.contains(&entry.position))
        })
    }

    async fn depth(&self, id: &SegmentId) -> Result<QueueDepth, StockError> {
        self.with(id, |segment| QueueDepth {
            entries: segment.queue.len() as u64,
            oldest_age_ms: 0,
        })
    }

    async fn accepted_after(
        &self,
        _: &SegmentId,
        _: Position,
        _: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Rebuild for MemoryStore {
    async fn freeze(
        &self,
        _segment: &SegmentId,
        _epoch: u64,
    ) -> Result<Option<SegmentStatus>, StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn unsettled(
        &self,
        _segment: &SegmentId,
        _after: Position,
        _max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn rebuild_begin(
        &self,
        _spec: &SegmentSpec,
        _epoch: u64,
        _moves: &StockMoves,
    ) -> Result<(), StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn rebuild_load(
        &self,
        _segment: &SegmentId,
        _epoch: u64,
        _orders: &[StoredOrder],
    ) -> Result<(), StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }

    async fn rebuild_finish(
        &self,
        _segment: &SegmentId,
        _epoch: u64,
        _gate: Gate,
    ) -> Result<SegmentStatus, StockError> {
        Err(StockError::Unavailable("rebuilds are not built yet".into()))
    }
}
