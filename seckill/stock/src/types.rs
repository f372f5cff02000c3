//! The words of the stock stores: what goes into a call and what comes out of it.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{BuyerId, OrderId, RequestId, SegmentId},
    metadata::Metadata,
    words,
};

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
    /// What an acceptance waits for; `None`: what the store was configured with.
    #[serde(default)]
    pub durability: Option<Durability>,
}

words! {
    /// What must have happened before an accepted purchase is answered; the least safe first.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Durability {
        /// It is in memory (and in the page cache). A crash of the machine loses what was not synced, a failover of Redis what was
        /// not replicated.
        Fast = "fast",
        /// One replica has it too (Redis `WAIT 1`). A failover to another replica can still lose it.
        Replicated = "replicated",
        /// It is on the disk: the embedded journal is synced, Redis runs with `appendfsync always`, or is asked to wait for its
        /// disk (checked when a sale is opened, and over each new connection).
        #[default]
        Durable = "durable",
    }
}

words! {
    /// What an operator allows, beside the window.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Gate {
        /// Purchases are decided as usual.
        Open = "open",
        /// Refused for now by an operator (`penstock sale pause`).
        Paused = "paused",
        /// Refused for good (`penstock sale close`).
        Closed = "closed",
        /// Refused while the segment is being checked or rebuilt; never told as "sold out".
        Frozen = "frozen",
    }
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
    /// What the order keeps for the shop. Part of what the fingerprint stands for.
    pub metadata: Option<Metadata>,
}

impl Purchase {
    /// The order that it becomes when it is accepted.
    pub(crate) fn reserved(&self, created_at_ms: u64, pay_by_ms: u64) -> StoredOrder {
        StoredOrder {
            order: self.order,
            buyer: self.buyer.clone(),
            request: self.request.clone(),
            quantity: self.quantity,
            fingerprint: self.fingerprint,
            state: OrderState::Reserved,
            created_at_ms,
            pay_by_ms,
            metadata: self.metadata.clone(),
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOrder {
    /// Its id.
    pub order: OrderId,
    /// Who bought.
    pub buyer: BuyerId,
    /// The idempotency key it was bought under.
    pub request: RequestId,
    /// Units.
    pub quantity: u32,
    /// Hash of what its request asked for; a replay must bring the same.
    pub fingerprint: u64,
    /// Where it stands.
    pub state: OrderState,
    /// When it was accepted, by the store's clock.
    pub created_at_ms: u64,
    /// When it is returned if still unpaid.
    pub pay_by_ms: u64,
    /// What its purchase brought for the shop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
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
        /// How many orders this segment has ever accepted: a reader of as many request ids has all of them.
        accepted: u64,
    },
    /// Quantity 0. The API refuses it earlier; a store refuses it again.
    InvalidQuantity,
}

/// One line of a cart: units of one sku, all lines of one sale, one buyer, one request id and one fingerprint (of the whole cart).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartLine {
    /// The segment; see [`SegmentId::of_cart`]. No two lines name the same.
    pub segment: SegmentId,
    /// The epoch that the caller knows of this segment.
    pub epoch: u64,
    /// What to buy there. Each line has an order id of its own.
    pub purchase: Purchase,
}

/// The answer to a cart: all lines, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CartVerdict {
    /// All units are taken and all orders are queued, in the order of the lines. Each is a [`Verdict::Accepted`].
    Accepted(Vec<Verdict>),
    /// The same cart was accepted before: its orders as they stand now. Nothing was changed.
    Replayed(Vec<StoredOrder>),
    /// One line was refused, so nothing was changed. A request id that some lines know and others do not, or with other content,
    /// is a [`Verdict::KeyReused`] of the first line that says so.
    Refused {
        /// Index of the line.
        line: usize,
        /// Why.
        verdict: Verdict,
    },
}

/// The answer to one release or confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The order was reserved. Its units went back now, or are sold now.
    Done,
    /// The units had gone back before: a payment came too late.
    AlreadyReleased,
    /// It was sold before; sold units are never returned here.
    AlreadySold,
    /// No such order in this segment.
    Unknown,
}

/// Counts of a segment at one instant. INV-STOCK-2: `available + reserved + sold = stock + restocked - withdrawn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentStatus {
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
    /// Units moved away, to other segments of the sku.
    pub withdrawn: u64,
    /// Orders ever accepted.
    pub accepted: u64,
    /// Whether the store itself doubts what it holds (another server answers than the one that sold, or a call died half way).
    /// Then `gate` is [`Gate::Frozen`], and only a rebuild under a new epoch opens the segment again.
    pub needs_rebuild: bool,
}

impl SegmentStatus {
    /// Units that the segment has to account for.
    pub fn capacity(&self) -> u64 {
        (self.spec.stock + self.restocked).saturating_sub(self.withdrawn)
    }
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
    /// The epoch of the segment when it was handed out; settlement passes it on.
    pub epoch: u64,
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

/// What a rebuilt segment starts from, beside its rules: everything that moved units in or out and is no order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StockMoves {
    /// Units added, by restock id (transfers from other segments among them).
    pub restocks: Vec<(String, u64)>,
    /// Units taken away, by withdrawal id; 0 for one that was called off, so that a late repetition of it moves nothing.
    pub withdrawals: Vec<(String, u64)>,
}

/// How an order is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// By its id.
    Order(OrderId),
    /// By buyer and idempotency key.
    Request(BuyerId, RequestId),
}
