//! A stock store that counts what is asked of it: how long each kind of call took, and why calls failed. Around both stores, so that what
//! Redis or the journal costs is told in the same words.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::{Counter, Histogram};
use stock::{
    Capabilities, CartLine, CartVerdict, Confirm, Gate, Lookup, Moves, OrderQueue, Position,
    Purchase, QueueDepth, QueueEntry, Rebuild, Release, SegmentSpec, SegmentStatus, Segments,
    Selling, StockError, StockMoves, StockStore, StoredOrder, Verdict, Wanted,
};
use tokio::time::Instant;

use crate::ids::{OrderId, SegmentId};

macro_rules! labels {
    ($type:ident, $all:ident: $($name:ident = $label:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum $type {
            $($name,)*
        }

        const $all: &[&str] = &[$($label,)*];
    };
}

labels! { Operation, OPERATIONS:
    Open = "open",
    Buy = "buy",
    BuyCart = "buy_cart",
    Release = "release",
    Confirm = "confirm",
    SetGate = "set_gate",
    Restock = "restock",
    Withdraw = "withdraw",
    SegmentStatus = "snapshot",
    Find = "find",
    ReadAccepted = "read_accepted",
    Pull = "pull",
    Ack = "ack",
    Depth = "depth",
    Rebuild = "rebuild",
}

labels! { Failure, FAILURES:
    NotOpen = "not_open",
    Unavailable = "unavailable",
    Unknown = "unknown",
    AwaitsRebuild = "awaits_rebuild",
    StaleEpoch = "stale_epoch",
    Corrupt = "corrupt",
}

impl From<&StockError> for Failure {
    fn from(error: &StockError) -> Self {
        match error {
            StockError::NotOpen(_) => Self::NotOpen,
            StockError::Unavailable(_) => Self::Unavailable,
            StockError::Unknown(_) => Self::Unknown,
            StockError::AwaitsRebuild(_) => Self::AwaitsRebuild,
            StockError::StaleEpoch { .. } => Self::StaleEpoch,
            StockError::Corrupt(_) => Self::Corrupt,
        }
    }
}

/// The store, counted.
pub(crate) struct CountedStore {
    store: Arc<dyn StockStore>,
    seconds: Vec<Histogram>,
    failures: Vec<Counter>,
}

impl CountedStore {
    /// Counts what is asked of this store; all series are there from now on.
    pub(crate) fn new(store: Arc<dyn StockStore>) -> Self {
        let seconds = |&operation: &&'static str| metrics::histogram!("penstock_store_call_seconds", "operation" => operation);
        let failures = |&error: &&'static str| metrics::counter!("penstock_store_errors_total", "error" => error);
        Self {
            store,
            seconds: OPERATIONS.iter().map(seconds).collect(),
            failures: FAILURES.iter().map(failures).collect(),
        }
    }

    async fn counted<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StockError>>,
    ) -> Result<T, StockError> {
        let began = Instant::now();
        let answer = call.await;
        self.seconds[operation as usize].record(began.elapsed().as_secs_f64());
        if let Err(error) = &answer {
            self.failures[Failure::from(error) as usize].increment(1);
        }
        answer
    }
}

#[async_trait]
impl Segments for CountedStore {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    /// Not counted: it is no call of a segment, and tells what is away by itself.
    async fn reach(&self) -> Result<(), StockError> {
        self.store.reach().await
    }

    async fn open(&self, spec: &SegmentSpec) -> Result<SegmentStatus, StockError> {
        self.counted(Operation::Open, self.store.open(spec)).await
    }

    async fn snapshot(&self, segment: &SegmentId) -> Result<SegmentStatus, StockError> {
        let call = self.store.snapshot(segment);
        self.counted(Operation::SegmentStatus, call).await
    }

    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<SegmentStatus, StockError> {
        let call = self.store.set_gate(segment, gate);
        self.counted(Operation::SetGate, call).await
    }
}

#[async_trait]
impl Selling for CountedStore {
    async fn buy(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchase: Purchase,
        wanted: Wanted,
    ) -> Result<Verdict, StockError> {
        let call = self.store.buy(segment, epoch, purchase, wanted);
        self.counted(Operation::Buy, call).await
    }

    async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError> {
        let call = self.store.buy_many(segment, epoch, purchases);
        self.counted(Operation::Buy, call).await
    }

    async fn buy_cart(&self, lines: Vec<CartLine>) -> Result<CartVerdict, StockError> {
        let call = self.store.buy_cart(lines);
        self.counted(Operation::BuyCart, call).await
    }

    async fn release_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Release>, StockError> {
        let call = self.store.release_many(segment, orders);
        self.counted(Operation::Release, call).await
    }

    async fn confirm_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Confirm>, StockError> {
        let call = self.store.confirm_many(segment, orders);
        self.counted(Operation::Confirm, call).await
    }

    async fn find(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError> {
        let call = self.store.find(segment, lookup);
        self.counted(Operation::Find, call).await
    }
}

#[async_trait]
impl Moves for CountedStore {
    async fn restock(
        &self,
        segment: &SegmentId,
        restock_id: &str,
        units: u64,
    ) -> Result<SegmentStatus, StockError> {
        let call = self.store.restock(segment, restock_id, units);
        self.counted(Operation::Restock, call).await
    }

    async fn withdraw(
        &self,
        segment: &SegmentId,
        withdrawal_id: &str,
        units: u64,
    ) -> Result<u64, StockError> {
        let call = self.store.withdraw(segment, withdrawal_id, units);
        self.counted(Operation::Withdraw, call).await
    }
}

#[async_trait]
impl OrderQueue for CountedStore {
    async fn pull(
        &self,
        segment: &SegmentId,
        consumer: &str,
        max: usize,
        reclaim_after: Duration,
    ) -> Result<Vec<QueueEntry>, StockError> {
        let call = self.store.pull(segment, consumer, max, reclaim_after);
        self.counted(Operation::Pull, call).await
    }

    async fn ack(&self, segment: &SegmentId, positions: &[Position]) -> Result<(), StockError> {
        let call = self.store.ack(segment, positions);
        self.counted(Operation::Ack, call).await
    }

    async fn depth(&self, segment: &SegmentId) -> Result<QueueDepth, StockError> {
        let call = self.store.depth(segment);
        self.counted(Operation::Depth, call).await
    }

    async fn accepted_after(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        let call = self.store.accepted_after(segment, after, max);
        self.counted(Operation::ReadAccepted, call).await
    }
}

#[async_trait]
impl Rebuild for CountedStore {
    async fn freeze(
        &self,
        segment: &SegmentId,
        epoch: u64,
    ) -> Result<Option<SegmentStatus>, StockError> {
        let call = self.store.freeze(segment, epoch);
        self.counted(Operation::Rebuild, call).await
    }

    async fn unsettled(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError> {
        let call = self.store.unsettled(segment, after, max);
        self.counted(Operation::Rebuild, call).await
    }

    async fn rebuild_begin(
        &self,
        spec: &SegmentSpec,
        epoch: u64,
        moves: &StockMoves,
    ) -> Result<(), StockError> {
        let call = self.store.rebuild_begin(spec, epoch, moves);
        self.counted(Operation::Rebuild, call).await
    }

    async fn rebuild_load(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
    ) -> Result<(), StockError> {
        let call = self.store.rebuild_load(segment, epoch, orders);
        self.counted(Operation::Rebuild, call).await
    }

    async fn rebuild_finish(
        &self,
        segment: &SegmentId,
        epoch: u64,
        gate: Gate,
    ) -> Result<SegmentStatus, StockError> {
        let call = self.store.rebuild_finish(segment, epoch, gate);
        self.counted(Operation::Rebuild, call).await
    }
}
