//! What sells: one trait, two stores (embedded, Redis), one conformance suite (in the crate `testkit`).
//!
//! A purchase arrives here in a batch, after the API has checked its form. In one atomic step the store decides
//! (replay → frozen → window → buyer limit → stock), takes the units, and puts the order on the queue that settlement reads.
//! Nothing before this step has an effect; everything after it can be repeated.
//!
//! This crate knows no HTTP and no SQL: what sells must not wait for either.

pub mod clock;
pub mod embedded;
pub mod ids;
pub mod redis;
mod types;
pub mod units;
mod wanted;

use std::time::Duration;

use async_trait::async_trait;

pub use self::types::{
    CartLine, CartVerdict, Confirm, Durability, Gate, Lookup, OrderState, Position, Purchase,
    QueueDepth, QueueEntry, Release, SegmentSpec, Snapshot, StockMoves, StoredOrder, Verdict,
};
pub use self::wanted::Wanted;
use crate::ids::{OrderId, SegmentId};

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
    /// The segment is being rebuilt, or waits for it: nothing was executed. Repeat later with the same ids.
    #[error("segment {0} waits for its rebuild")]
    AwaitsRebuild(SegmentId),
    /// A step of a rebuild came under an epoch that is no longer the newest: another rebuild has overtaken it. Nothing was done.
    #[error("segment {segment} is at epoch {current} already")]
    StaleEpoch {
        /// Which segment.
        segment: SegmentId,
        /// Its epoch.
        current: u64,
    },
    /// The store holds something it should not: a corrupted journal, a foreign key type. An operator must look.
    #[error("store is corrupt: {0}")]
    Corrupt(String),
}

/// A place that holds stock. Every call is atomic for its segment; batches answer in the order of their items.
#[async_trait]
pub trait StockStore: Send + Sync + 'static {
    /// The levels of durability that it can keep at all; a sale of another level must not be made.
    fn levels(&self) -> &'static [Durability] {
        &Durability::ALL
    }

    /// Whether all of it can be reached. What cannot is tried again, so call this now and then.
    async fn reach(&self) -> Result<(), StockError>;

    /// Opens a segment, or takes over changed rules (window, limit, pay_within) of an open one; its `stock` is only read the
    /// first time (use [`StockStore::restock`] after that). Idempotent.
    async fn open(&self, spec: &SegmentSpec) -> Result<Snapshot, StockError>;

    /// Decides one purchase, in one step with others that wait at the same time: callers need not gather them. One that is given up
    /// when its turn comes is [`StockError::Unavailable`].
    async fn buy(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchase: Purchase,
        wanted: Wanted,
    ) -> Result<Verdict, StockError>;

    /// Decides a batch of purchases.
    async fn buy_many(
        &self,
        segment: &SegmentId,
        epoch: u64,
        purchases: Vec<Purchase>,
    ) -> Result<Vec<Verdict>, StockError>;

    /// Decides a cart: all lines or none, in one atomic step. Takes 1 to [`MAX_CART_LINES`] lines whose segments live together
    /// ([`SegmentId::of_cart`]).
    async fn buy_cart(&self, lines: Vec<CartLine>) -> Result<CartVerdict, StockError>;

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

    /// Takes up to `units` unsold units away, to be added to another segment; answers how many. The same `withdrawal_id` takes
    /// once and gives the first answer again. Moves units while paused too, never while frozen.
    async fn withdraw(
        &self,
        segment: &SegmentId,
        withdrawal_id: &str,
        units: u64,
    ) -> Result<u64, StockError>;

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

    // The rebuild of a segment, each step repeatable: freeze → read `unsettled` into the ledger → `rebuild_begin` →
    // `rebuild_load`… → `rebuild_finish`. The epoch is the fencing token: it comes from the ledger, grows with every rebuild, and
    // a step under an older one than the segment has is refused with [`StockError::StaleEpoch`].

    /// Stops a segment under a new epoch: nothing is sold, released, confirmed, handed out or acknowledged until
    /// [`StockStore::rebuild_finish`]. Replays and lookups go on. A segment that the store does not know (lost data) is no
    /// error: answers `None`. Works on one that `needs_rebuild`.
    async fn freeze(&self, segment: &SegmentId, epoch: u64)
    -> Result<Option<Snapshot>, StockError>;

    /// Entries of the queue that were never acknowledged, handed out or not, after a position; works while frozen and on a
    /// segment that `needs_rebuild`. An unknown segment has none. Entries that cannot be read are left out.
    async fn unsettled(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError>;

    /// Throws away what the store holds of a frozen or lost segment and begins it anew, still frozen, without orders.
    async fn rebuild_begin(
        &self,
        spec: &SegmentSpec,
        epoch: u64,
        moves: &StockMoves,
    ) -> Result<(), StockError>;

    /// Puts orders of the ledger back, in their states, as accepted and acknowledged. The same order twice counts once. Orders
    /// that need more units than are left are refused as [`StockError::Corrupt`]: the ledger never holds so many.
    async fn rebuild_load(
        &self,
        segment: &SegmentId,
        epoch: u64,
        orders: &[StoredOrder],
    ) -> Result<(), StockError>;

    /// Ends a rebuild: the segment trusts itself again and has this gate.
    async fn rebuild_finish(
        &self,
        segment: &SegmentId,
        epoch: u64,
        gate: Gate,
    ) -> Result<Snapshot, StockError>;
}

/// How long the stores keep the orders of a sale after its last moment to pay, unless configured otherwise. A week: longer than any
/// client repeats a request that must find its tombstone, and an operator still sees a sale of last weekend in the store.
/// `redis/library/queue.lua` has the same number.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Most lines of a cart.
pub const MAX_CART_LINES: usize = 16;
