//! A real stock store behind a thin wrapper that stalls a segment, refuses a call before the store sees it, or loses the answer
//! after the store has acted: what a crash between two steps looks like to the next one.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use stock::{
    Capabilities, CartLine, CartVerdict, Gate, Lookup, Moves, OrderQueue, Position, Purchase,
    QueueDepth, QueueEntry, Rebuild, SegmentSpec, SegmentStatus, Segments, Selling, StockError,
    StockMoves, StockStore, StoredOrder, Transition, Verdict, Wanted,
    ids::{OrderId, SegmentId},
};
use tokio::sync::Notify;

/// A call that moves units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Withdraw,
    Restock,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store never sees it.
    Before,
    /// The store does it, and nobody learns so.
    After,
}

pub struct FaultyStore {
    inner: Arc<dyn StockStore>,
    /// Each applies once to its segment, or to whichever comes first.
    faults: Mutex<Vec<(Verb, Fault, Option<SegmentId>)>>,
    stalled: Mutex<HashSet<SegmentId>>,
    /// Segments whose purchases are decided and not answered.
    unanswered: Mutex<HashSet<SegmentId>>,
    resumed: Notify,
    /// Calls that met a stalled segment.
    pub stalls: AtomicUsize,
    /// Happens between the next decision of purchases and its answer.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Whether every call is refused before the store sees it.
    pub is_away: AtomicBool,
    /// Whether it says that it decides carts.
    pub decides_carts: AtomicBool,
    /// Calls of any kind.
    pub calls: AtomicUsize,
    /// Restocks that reached the store.
    pub restocks: AtomicUsize,
    /// Snapshots that were asked for.
    pub snapshots: AtomicUsize,
    /// Times that accepted orders were read back.
    pub read_back: AtomicUsize,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn StockStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            stalled: Mutex::default(),
            unanswered: Mutex::default(),
            resumed: Notify::new(),
            stalls: AtomicUsize::new(0),
            meanwhile: Mutex::default(),
            is_away: AtomicBool::new(false),
            decides_carts: AtomicBool::new(true),
            calls: AtomicUsize::new(0),
            restocks: AtomicUsize::new(0),
            snapshots: AtomicUsize::new(0),
            read_back: AtomicUsize::new(0),
        })
    }

    /// The next such call of any segment goes wrong.
    pub fn fail_next(&self, verb: Verb, fault: Fault) {
        self.faults.lock().unwrap().push((verb, fault, None));
    }

    /// The next such call of this segment goes wrong.
    pub fn fail_next_of(&self, verb: Verb, fault: Fault, segment: &SegmentId) {
        let fault = (verb, fault, Some(segment.clone()));
        self.faults.lock().unwrap().push(fault);
    }

    /// No call of this segment is answered until [`FaultyStore::resume`].
    pub fn stall(&self, segment: &SegmentId) {
        self.stalled.lock().unwrap().insert(segment.clone());
    }

    /// Purchases of this segment are decided, and not answered until [`FaultyStore::resume`].
    pub fn stall_answers(&self, segment: &SegmentId) {
        self.unanswered.lock().unwrap().insert(segment.clone());
    }

    pub fn resume(&self) {
        self.stalled.lock().unwrap().clear();
        self.unanswered.lock().unwrap().clear();
        self.resumed.notify_waiters();
    }

    async fn pass(&self, segment: &SegmentId) -> Result<(), StockError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.wait_out(&self.stalled, segment).await;
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(refused()),
            false => Ok(()),
        }
    }

    async fn wait_out(&self, stalled: &Mutex<HashSet<SegmentId>>, segment: &SegmentId) {
        loop {
            let resumed = self.resumed.notified();
            if !stalled.lock().unwrap().contains(segment) {
                return;
            }
            self.stalls.fetch_add(1, Ordering::SeqCst);
            resumed.await;
        }
    }

    /// What a test wants to happen between a decision and its answer.
    fn go_on(&self) {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }

    fn fault(&self, verb: Verb, segment: &SegmentId) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let applies = |(of, _, at): &(Verb, Fault, Option<SegmentId>)| {
            *of == verb && at.as_ref().is_none_or(|at| at == segment)
        };
        let place = faults.iter().position(applies)?;
        Some(faults.remove(place).1)
    }
}

fn refused() -> StockError {
    StockError::Unavailable("refused by the test".to_owned())
}

fn lost() -> StockError {
    StockError::Unknown("answer lost by the test".to_owned())
}

#[async_trait]
impl Segments for FaultyStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            carts: self.decides_carts.load(Ordering::SeqCst),
            ..self.inner.capabilities()
        }
    }

    async fn reach(&self) -> Result<(), StockError> {
        self.inner.reach().await
    }

    async fn open(&self, spec: &SegmentSpec) -> Result<SegmentStatus, StockError> {
        self.pass(&spec.id).await?;
        self.inner.open(spec).await
    }

    async fn snapshot(&self, segment: &SegmentId) -> Result<SegmentStatus, StockError> {
        self.pass(segment).await?;
        self.snapshots.fetch_add(1, Ordering::SeqCst);
        self.inner.snapshot(segment).await
    }

    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<SegmentStatus, StockError> {
        self.pass(segment).await?;
        self.inner.set_gate(segment, gate).await
    }
}

#[async_trait]
impl Selling for FaultyStore {
    async fn buy(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchase: Purchase,
        wanted: Wanted,
    ) -> Result<Verdict, StockError> {
        self.pass(segment).await?;
        let verdict = self.inner.buy(segment, epoch, purchase, wanted).await;
        self.wait_out(&self.unanswered, segment).await;
        self.go_on();
        verdict
    }

    async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError> {
        self.pass(segment).await?;
        let verdicts = self.inner.buy_many(segment, epoch, purchases).await;
        self.go_on();
        verdicts
    }

    async fn buy_cart(&self, lines: Vec<CartLine>) -> Result<CartVerdict, StockError> {
        for line in &lines {
            self.pass(&line.segment).await?;
        }
        self.inner.buy_cart(lines).await
    }

    async fn release_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError> {
        self.pass(segment).await?;
        self.inner.release_many(segment, orders).await
    }

    async fn confirm_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError> {
        self.pass(segment).await?;
        self.inner.confirm_many(segment, orders).await
    }

    async fn find(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError> {
        self.pass(segment).await?;
        self.inner.find(segment, lookup).await
    }
}

#[async_trait]
impl Moves for FaultyStore {
    async fn restock(
        &self,
        segment: &SegmentId,
        restock_id: &str,
        units: u64,
    ) -> Result<SegmentStatus, StockError> {
        self.pass(segment).await?;
        let fault = self.fault(Verb::Restock, segment);
        if fault == Some(Fault::Before) {
            return Err(refused());
        }
        self.restocks.fetch_add(1, Ordering::SeqCst);
        let done = self.inner.restock(segment, restock_id, units).await?;
        fault.map_or(Ok(done), |_| Err(lost()))
    }

    async fn withdraw(
        &self,
        segment: &SegmentId,
        withdrawal_id: &str,
        units: u64,
    ) -> Result<u64, StockError> {
        self.pass(segment).await?;
        let fault = self.fault(Verb::Withdraw, segment);
        if fault == Some(Fault::Before) {
            return Err(refused());
        }
        let taken = self.inner.withdraw(segment, withdrawal_id, units).await?;
        fault.map_or(Ok(taken), |_| Err(lost()))
    }
}

#[async_trait]
impl OrderQueue for FaultyStore {
    async fn pull(
        &self,
        segment: &SegmentId,
        consumer: &str,
        max: usize,
        reclaim_after: Duration,
    ) -> Result<Vec<QueueEntry>, StockError> {
        self.pass(segment).await?;
        self.inner.pull(segment, consumer, max, reclaim_after).await
    }

    async fn ack(&self, segment: &SegmentId, positions: &[Position]) -> Result<(), StockError> {
        self.pass(segment).await?;
        self.inner.ack(segment, positions).await
    }

    async fn depth(&self, segment: &SegmentId) -> Result<QueueDepth, StockError> {
        self.pass(segment).await?;
        self.inner.depth(segment).await
    }

    async fn accepted_after(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        self.pass(segment).await?;
        self.read_back.fetch_add(1, Ordering::SeqCst);
        self.inner.accepted_after(segment, after, max).await
    }
}

#[async_trait]
impl Rebuild for FaultyStore {
    async fn freeze(
        &self,
        segment: &SegmentId,
        epoch: u64,
    ) -> Result<Option<SegmentStatus>, StockError> {
        self.pass(segment).await?;
        self.inner.freeze(segment, epoch).await
    }

    async fn unsettled(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        self.pass(segment).await?;
        self.inner.unsettled(segment, after, max).await
    }

    async fn rebuild_begin(
        &self,
        spec: &SegmentSpec,
        epoch: u64,
        moves: &StockMoves,
    ) -> Result<(), StockError> {
        self.pass(&spec.id).await?;
        self.inner.rebuild_begin(spec, epoch, moves).await
    }

    async fn rebuild_load(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
    ) -> Result<(), StockError> {
        self.pass(segment).await?;
        self.inner.rebuild_load(segment, epoch, orders).await
    }

    async fn rebuild_finish(
        &self,
        segment: &SegmentId,
        epoch: u64,
        gate: Gate,
    ) -> Result<SegmentStatus, StockError> {
        self.pass(segment).await?;
        self.inner.rebuild_finish(segment, epoch, gate).await
    }
}
