//! A stock store that counts what is asked of it: how long each kind of call took, and why calls failed. Around both stores, so that what
//! Redis or the journal costs is told in the same words.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::{Counter, Histogram};
use stock::{
    Capabilities, CartLine, CartVerdict, Gate, Lookup, Moves, OrderQueue, Position, Purchase,
    QueueDepth, QueueEntry, Rebuild, SegmentSpec, SegmentStatus, Segments, Selling, StockError,
    StockMoves, StockStore, StoredOrder, Transition, Verdict, Wanted, words,
};
use tokio::time::Instant;

use crate::ids::{OrderId, SegmentId};

words! {
    enum Operation {
        Open = "open",
        Buy = "buy",
        BuyCart = "buy_cart",
        Release = "release",
        Confirm = "confirm",
        SetGate = "set_gate",
        Restock = "restock",
        Withdraw = "withdraw",
        Snapshot = "snapshot",
        Find = "find",
        ReadAccepted = "read_accepted",
        Pull = "pull",
        Ack = "ack",
        Depth = "depth",
        Rebuild = "rebuild",
    }
}

words! {
    enum Failure {
        NotOpen = "not_open",
        Unavailable = "unavailable",
        Unknown = "unknown",
        AwaitsRebuild = "awaits_rebuild",
        StaleEpoch = "stale_epoch",
        Corrupt = "corrupt",
    }
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
    seconds: [Histogram; Operation::ALL.len()],
    failures: [Counter; Failure::ALL.len()],
}

impl CountedStore {
    /// Counts what is asked of this store; all series are there from now on.
    pub(crate) fn new(store: Arc<dyn StockStore>) -> Self {
        let seconds = |operation: Operation| metrics::histogram!("penstock_store_call_seconds", "operation" => operation.as_str());
        let failures = |error: Failure| metrics::counter!("penstock_store_errors_total", "error" => error.as_str());
        Self {
            store,
            seconds: Operation::ALL.map(seconds),
            failures: Failure::ALL.map(failures),
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

/// The calls of one part of the store, each counted as an operation.
macro_rules! counted {
    ($part:ident: $($operation:ident $name:ident($($given:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl $part for CountedStore {
            $(async fn $name(&self, $($given: $type),*) -> Result<$answer, StockError> {
                let call = self.store.$name($($given),*);
                self.counted(Operation::$operation, call).await
            })*
        }
    };
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
        self.counted(Operation::Snapshot, call).await
    }

    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<SegmentStatus, StockError> {
        let call = self.store.set_gate(segment, gate);
        self.counted(Operation::SetGate, call).await
    }
}

counted! { Selling:
    Buy buy(segment: &SegmentId, epoch: u64, purchase: Purchase, wanted: Wanted) -> Verdict;
    Buy buy_many(segment: &SegmentId, epoch: u64, purchases: Vec<Purchase>) -> Vec<Verdict>;
    BuyCart buy_cart(lines: Vec<CartLine>) -> CartVerdict;
    Release release_many(segment: &SegmentId, orders: &[OrderId]) -> Vec<Transition>;
    Confirm confirm_many(segment: &SegmentId, orders: &[OrderId]) -> Vec<Transition>;
    Find find(segment: &SegmentId, lookup: &Lookup) -> Option<StoredOrder>;
}

counted! { Moves:
    Restock restock(segment: &SegmentId, restock_id: &str, units: u64) -> SegmentStatus;
    Withdraw withdraw(segment: &SegmentId, withdrawal_id: &str, units: u64) -> u64;
}

counted! { OrderQueue:
    Pull pull(segment: &SegmentId, consumer: &str, max: usize, reclaim_after: Duration) -> Vec<QueueEntry>;
    Ack ack(segment: &SegmentId, positions: &[Position]) -> ();
    Depth depth(segment: &SegmentId) -> QueueDepth;
    ReadAccepted accepted_after(segment: &SegmentId, after: Position, max: usize) -> Vec<(Position, StoredOrder)>;
}

counted! { Rebuild:
    Rebuild freeze(segment: &SegmentId, epoch: u64) -> Option<SegmentStatus>;
    Rebuild unsettled(segment: &SegmentId, after: Position, max: usize) -> Vec<(Position, StoredOrder)>;
    Rebuild rebuild_begin(spec: &SegmentSpec, epoch: u64, moves: &StockMoves) -> ();
    Rebuild rebuild_load(segment: &SegmentId, epoch: u64, orders: &[StoredOrder]) -> ();
    Rebuild rebuild_finish(segment: &SegmentId, epoch: u64, gate: Gate) -> SegmentStatus;
}
