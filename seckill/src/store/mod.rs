//! Where stock is taken: one trait, two stores (embedded, Redis), one conformance suite.
//!
//! A purchase arrives here from [`crate::purchase`], in a batch, after the API has checked its form. In one atomic step the
//! store decides (replay → frozen → window → buyer limit → stock), takes the units, and puts the order on the queue that
//! [`crate::settlement`] reads. Nothing before this step has an effect; everything after it can be repeated.

#[cfg(any(test, feature = "testsuite"))]
pub mod conformance;
pub mod embedded;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ids::{BuyerId, OrderId, RequestId, SegmentId};

/// What a segment sells and under which rules. Set when the sale is created; times are unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSpec {
    /// Which segment.
    pub id: SegmentId,
    /// Units on sale at the start; restocks are added to it.
    pub stock: u64,
    /// First instant of the window, by the store's clock.
    pub starts_at_ms: u64,
    /// First instant after the window.
    pub ends_at_ms: u64,
    /// Most live units (reserved or sold) one buyer may hold of this segment.
    pub buyer_limit: u32,
    /// How long an order may stay unpaid before it is returned.
    pub pay_within_ms: u64,
}

/// What must have happened before an accepted purchase is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It is in memory (and in the page cache). A crash of the machine loses what was not synced, a failover of Redis what was
    /// not replicated.
    Fast,
    /// One replica has it too (Redis `WAIT 1`). A failover to another replica can still lose it.
    Replicated,
    /// It is on the disk: the embedded journal is synced, Redis runs with `appendfsync always` (checked when connecting).
    #[default]
    Durable,
}

/// What an operator allows, beside the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Purchases are decided as usual.
    Open,
    /// Refused for now by an operator (`penstock sale pause`).
    Paused,
    /// Refused for good (`penstock sale close`).
    Closed,
    /// Refused while the segment is being checked or rebuilt; never told as "sold out".
    Frozen,
}

/// One request to buy, its form already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// The id the order gets if it is accepted.
    pub order: OrderId,
    /// Who buys.
    pub buyer: BuyerId,
    /// The caller's idempotency key.
    pub request: RequestId,
    /// Hash of what the request asks for; the same request id with another fingerprint is a conflict.
    pub fingerprint: u64,
    /// Units wanted, at least 1; a store refuses 0 with [`Verdict::InvalidQuantity`].
    pub quantity: u32,
}

/// Where an order stands in the store. The ledger says the same with more detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Units are held.
    Reserved,
    /// Paid: the units are gone for good.
    Sold,
    /// Units went back. The record stays as a tombstone, so that a late retry cannot buy again.
    Released,
}

/// An order as the store remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOrder {
    /// Its id.
    pub order: OrderId,
    /// Who bought.
    pub buyer: BuyerId,
    /// The idempotency key it was bought under.
    pub request: RequestId,
    /// Units.
    pub quantity: u32,
    /// Where it stands.
    pub state: OrderState,
    /// When it was accepted, by the store's clock.
    pub created_at_ms: u64,
    /// When it is returned if still unpaid.
    pub pay_by_ms: u64,
}

/// The answer to one purchase. All of these are expected outcomes, none is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The units are taken and the order is queued.
    Accepted {
        /// The order.
        order: StoredOrder,
        /// Units left after it.
        remaining: u64,
        /// Version of the stock after it; grows with every change of a segment.
        version: u64,
    },
    /// This request id was accepted before; its order as it stands now. Nothing was changed.
    Replayed(StoredOrder),
    /// This request id was used before with other content. Nothing was changed.
    KeyReused,
    /// The window has not begun.
    NotStarted {
        /// When it begins.
        starts_at_ms: u64,
        /// The store's clock at the decision.
        now_ms: u64,
    },
    /// The window is over, or the sale was closed.
    Ended,
    /// An operator has paused the sale.
    Paused,
    /// The segment is frozen; the caller should retry.
    Frozen,
    /// The call carried an old epoch; the caller must re-read the segment.
    StaleEpoch {
        /// The epoch in force.
        current: u64,
    },
    /// The buyer would hold more than the limit.
    BuyerLimit {
        /// Units the buyer holds now.
        held: u32,
        /// The limit.
        limit: u32,
    },
    /// Fewer units are left than asked for.
    SoldOut {
        /// Units left (may be more than zero if more than one was asked for).
        remaining: u64,
        /// Version of the stock at the decision.
        version: u64,
        /// How many orders this segment has ever accepted; see [`crate::sold_out`].
        accepted: u64,
    },
    /// Quantity 0. The API refuses it earlier; a store refuses it again.
    InvalidQuantity,
}

/// The answer to one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The units went back now.
    Released,
    /// They had gone back before.
    AlreadyReleased,
    /// The order is sold; sold units are never returned here.
    AlreadySold,
    /// No such order in this segment.
    Unknown,
}

/// The answer to one confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// Reserved became sold now.
    Confirmed,
    /// It was sold before.
    AlreadySold,
    /// The units had gone back: the payment came too late.
    AlreadyReleased,
    /// No such order in this segment.
    Unknown,
}

/// Counts of a segment at one instant. INV-STOCK-2: `available + reserved + sold = stock + restocked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The rules in force.
    pub spec: SegmentSpec,
    /// The operator's gate.
    pub gate: Gate,
    /// The epoch in force.
    pub epoch: u64,
    /// Version of the stock.
    pub version: u64,
    /// Units for sale.
    pub available: u64,
    /// Units of orders not yet paid.
    pub reserved: u64,
    /// Units of paid orders.
    pub sold: u64,
    /// Units added after the start.
    pub restocked: u64,
    /// Orders ever accepted.
    pub accepted: u64,
}

/// Place of an entry in a segment's queue; grows. In Redis the two numbers of a stream id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// High part.
    pub major: u64,
    /// Low part.
    pub minor: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.major, self.minor)
    }
}

/// One accepted order on its way to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// Its place.
    pub position: Position,
    /// How often it was handed out, this time included.
    pub deliveries: u32,
    /// The order, or why the entry could not be read (a poison entry: set aside, counted, acknowledged).
    pub order: Result<StoredOrder, String>,
}

/// How much waits for settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Entries not acknowledged, handed out or not.
    pub entries: u64,
    /// Age of the oldest of them.
    pub oldest_age_ms: u64,
}

/// How an order is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// By its id.
    Order(OrderId),
    /// By buyer and idempotency key.
    Request(BuyerId, RequestId),
}

/// Why a store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StockError {
    /// The segment was never opened in this store, or was lost. The caller must open it (or the operator restore it).
    #[error("segment {0} is not open in the store")]
    NotOpen(SegmentId),
    /// The call was certainly not executed: the store could not be reached or is shut down. Safe to retry with the same ids.
    #[error("stock store unavailable: {0}")]
    Unavailable(String),
    /// The call may have been executed. Never compensate; repeat with the same ids, or poll.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The store holds something it should not: a corrupted journal, a foreign key type. An operator must look.
    #[error("store is corrupt: {0}")]
    Corrupt(String),
}

/// A place that holds stock. Every call is atomic for its segment; batches answer in the order of their items.
#[async_trait]
pub trait StockStore: Send + Sync + 'static {
    /// Opens a segment, or takes over changed rules (window, limit, pay_within) of an open one; its `stock` is only read the
    /// first time (use [`StockStore::restock`] after that). Idempotent.
    async fn open(&self, spec: &SegmentSpec) -> Result<Snapshot, StockError>;

    /// Decides a batch of purchases.
    async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError>;

    /// Returns the units of unpaid orders, each at most once.
    async fn release_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Release>, StockError>;

    /// Marks orders as paid.
    async fn confirm_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Confirm>, StockError>;

    /// Sets the operator's gate.
    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<Snapshot, StockError>;

    /// Adds units. The same `restock_id` adds them once.
    async fn restock(
        &self,
        segment: &SegmentId,
        restock_id: &str,
        units: u64,
    ) -> Result<Snapshot, StockError>;

    /// Counts at one instant.
    async fn snapshot(&self, segment: &SegmentId) -> Result<Snapshot, StockError>;

    /// Finds one order.
    async fn find(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError>;

    /// Orders accepted after a position, oldest first, settled or not: what a node reads to know all accepted request ids.
    async fn accepted_after(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError>;

    /// Hands out up to `max` entries to a consumer: first those another consumer (or this one, before a crash) took and did not
    /// acknowledge for `reclaim_after`, then new ones. Returns at once when there is nothing.
    async fn pull(
        &self,
        segment: &SegmentId,
        consumer: &str,
        max: usize,
        reclaim_after: Duration,
    ) -> Result<Vec<QueueEntry>, StockError>;

    /// Takes entries off the queue for good. Call it after the ledger has committed, never before.
    async fn ack(&self, segment: &SegmentId, positions: &[Position]) -> Result<(), StockError>;

    /// How much waits.
    async fn depth(&self, segment: &SegmentId) -> Result<QueueDepth, StockError>;
}
