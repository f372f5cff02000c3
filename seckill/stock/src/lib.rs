//! What sells: one trait in parts ([`StockStore`]), two stores (embedded, Redis), one conformance suite (in the crate `testkit`).
//!
//! A purchase arrives here in a batch, after the API has checked its form. In one atomic step the store decides
//! (replay → frozen → window → buyer limit → stock), takes the units, and puts the order on the queue that settlement reads.
//! Nothing before this step has an effect; everything after it can be repeated.
//!
//! This crate knows no HTTP and no SQL: what sells must not wait for either.

#![warn(unreachable_pub)]

pub mod clock;
pub mod embedded;
pub mod ids;
pub mod metadata;
pub mod redis;
mod store;
mod types;
pub mod units;
mod wanted;
mod words;

use std::time::Duration;

pub use self::metadata::Metadata;
pub use self::store::{Capabilities, Moves, OrderQueue, Rebuild, Segments, Selling, StockStore};
pub use self::types::{
    CartLine, CartVerdict, Durability, Gate, Lookup, OrderState, Position, Purchase, QueueDepth,
    QueueEntry, SegmentSpec, SegmentStatus, StockMoves, StoredOrder, Transition, Verdict,
};
pub use self::wanted::Wanted;
use crate::ids::SegmentId;

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

/// How long the stores keep the orders of a sale after its last moment to pay, unless configured otherwise. A week: longer than any
/// client repeats a request that must find its tombstone, and an operator still sees a sale of last weekend in the store.
/// `redis/library/queue.lua` has the same number.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Most lines of a cart.
pub const MAX_CART_LINES: usize = 16;
