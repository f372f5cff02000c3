//! What a stock store promises, in parts: a worker takes only the part that it works with.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    CartLine, CartVerdict, Durability, Gate, Lookup, Position, Purchase, QueueDepth, QueueEntry,
    SegmentSpec, SegmentStatus, StockError, StockMoves, StoredOrder, Transition, Verdict, Wanted,
    ids::{OrderId, SegmentId},
};

/// All of it: what a node sells from.
pub trait StockStore: Selling + Moves + Rebuild {}

impl<T: Selling + Moves + Rebuild> StockStore for T {}

/// What a store can do at all. It does not change while the store lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The levels of durability that it can keep; a sale of another level must not be made.
    pub durability: &'static [Durability],
    /// Whether it decides carts; a sale with carts must not be made in one that does not.
    pub carts: bool,
}

/// The segments of a store: each is opened, looked at and stopped. Every call of every part is atomic for its segment.
#[async_trait]
pub trait Segments: Send + Sync + 'static {
    /// What the store can do. Ask once, at the start.
    fn capabilities(&self) -> Capabilities;

    /// Whether all of it can be reached. What cannot is tried again, so call this now and then.
    async fn reach(&self) -> Result<(), StockError>;

    /// Opens a segment, or takes over changed rules (window, limit, pay_within) of an open one; its `stock` is only read the
    /// first time (use [`Moves::restock`] after that). Idempotent.
    async fn open(&self, spec: &SegmentSpec) -> Result<SegmentStatus, StockError>;

    /// Counts at one instant.
    async fn snapshot(&self, segment: &SegmentId) -> Result<SegmentStatus, StockError>;

    /// Sets the operator's gate.
    async fn set_gate(&self, segment: &SegmentId, gate: Gate) -> Result<SegmentStatus, StockError>;
}

/// Orders: who gets units, who gives them back, who has paid. Batches answer in the order of their items. Whatever is repeated with
/// the same ids has no second effect: a purchase answers its first order, a release returns units once.
#[async_trait]
pub trait Selling: Segments {
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

    /// Decides a cart: all lines or none, in one atomic step. Takes 1 to [`crate::MAX_CART_LINES`] lines whose segments live together
    /// ([`SegmentId::of_cart`]).
    async fn buy_cart(&self, lines: Vec<CartLine>) -> Result<CartVerdict, StockError>;

    /// Returns the units of unpaid orders, each at most once.
    async fn release_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError>;

    /// Marks orders as paid.
    async fn confirm_many(
        &self,
        segment: &SegmentId,
        orders: &[OrderId],
    ) -> Result<Vec<Transition>, StockError>;

    /// Finds one order.
    async fn find(
        &self,
        segment: &SegmentId,
        lookup: &Lookup,
    ) -> Result<Option<StoredOrder>, StockError>;
}

/// Units that enter or leave a segment without an order. Each move has an id and happens once, however often it is asked for, also
/// after a rebuild that was told of it ([`StockMoves`]).
#[async_trait]
pub trait Moves: Segments {
    /// Adds units. The same `restock_id` adds them once.
    async fn restock(
        &self,
        segment: &SegmentId,
        restock_id: &str,
        units: u64,
    ) -> Result<SegmentStatus, StockError>;

    /// Takes up to `units` unsold units away, to be added to another segment; answers how many. The same `withdrawal_id` takes
    /// once and gives the first answer again. Moves units while paused too, never while frozen.
    async fn withdraw(
        &self,
        segment: &SegmentId,
        withdrawal_id: &str,
        units: u64,
    ) -> Result<u64, StockError>;
}

/// The accepted orders of a segment, as a queue for settlement. An order is on it from the atomic step that accepted it, and until it
/// is acknowledged it is handed out again and again: at least once, never lost.
#[async_trait]
pub trait OrderQueue: Segments {
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

    /// Orders accepted after a position, oldest first, settled or not: what a node reads to know all accepted request ids.
    async fn accepted_after(
        &self,
        segment: &SegmentId,
        after: Position,
        max: usize,
    ) -> Result<Vec<(Position, StoredOrder)>, StockError>;
}

/// The rebuild of a segment, each step repeatable: [`freeze`](Rebuild::freeze) → read [`unsettled`](Rebuild::unsettled) into the ledger →
/// [`rebuild_begin`](Rebuild::rebuild_begin) → [`rebuild_load`](Rebuild::rebuild_load)… → [`rebuild_finish`](Rebuild::rebuild_finish).
/// The epoch is the fencing token: it comes from the ledger, grows with every rebuild, and a step under an older one than the segment
/// has is refused with [`StockError::StaleEpoch`]. It reads the queue first, so only a store with a queue can be rebuilt.
#[async_trait]
pub trait Rebuild: OrderQueue {
    /// Stops a segment under a new epoch: nothing is sold, released, confirmed, handed out or acknowledged until
    /// [`Rebuild::rebuild_finish`]. Replays and lookups go on. A segment that the store does not know (lost data) is no
    /// error: answers `None`. Works on one that `needs_rebuild`.
    async fn freeze(
        &self,
        segment: &SegmentId,
        epoch: u64,
    ) -> Result<Option<SegmentStatus>, StockError>;

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
    ) -> Result<SegmentStatus, StockError>;
}
