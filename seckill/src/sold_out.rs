//! Saying "sold out" from memory: no store call, no lock across segments, no wrong answer to a retry.
//!
//! After the last unit is gone almost every request is a refusal, so it has to be cheap. Two things make it safe:
//! - *Versions.* Every change of a segment raises its version. "Empty as of version 7" is overruled by "units as of version 8"
//!   and by nothing older, so a slow answer can never hide a return or a restock.
//! - *Known orders.* A retry of an accepted request must replay its order even when nothing is left. So this node answers from
//!   memory only while it knows every request id that the segment had accepted when it was last seen empty, and only for other
//!   ids. (What another node accepted and emptied again since then is known after the next refresh, half a second later; until
//!   then its retry, if it comes here, may be told "sold out" once.)

use std::{
    hash::{BuildHasher, Hash},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ahash::{AHashSet, RandomState};

use crate::{
    ids::{BuyerId, RequestId},
    store::Position,
};

/// Enough that the data plane's cores seldom meet on one lock.
const SHARDS: usize = 16;

/// What one node remembers about the stock of one segment.
#[derive(Debug)]
pub struct SoldOut {
    /// Highest version at which no unit was left.
    empty_at: AtomicU64,
    /// Highest version at which units were left.
    stocked_at: AtomicU64,
    /// Orders that the segment had accepted when it was last seen empty.
    accepted: AtomicU64,
    /// Distinct hashes in `known`.
    known_count: AtomicU64,
    /// Hashes of accepted requests, on this node or read from the store. Two requests with one hash cost a store call, not a
    /// wrong answer. `std` locks, held for one lookup.
    known: [RwLock<AHashSet<u64>>; SHARDS],
    hasher: RandomState,
    /// Up to where accepted orders were read from the store. A `std` lock: held for a copy.
    read_up_to: Mutex<Position>,
}

impl Default for SoldOut {
    fn default() -> Self {
        Self {
            empty_at: AtomicU64::new(0),
            stocked_at: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            known_count: AtomicU64::new(0),
            known: Default::default(),
            hasher: RandomState::new(),
            read_up_to: Mutex::default(),
        }
    }
}

impl SoldOut {
    /// Whether the segment is certainly empty and this request certainly new: then the answer is "sold out".
    pub fn refuses(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        // `stocked_at` is read last: a return that lands in between makes this say "no", which costs one store call.
        let empty_at = self.empty_at.load(Ordering::Acquire);
        if empty_at == 0
            || self.known_count.load(Ordering::Acquire) < self.accepted.load(Ordering::Acquire)
        {
            return false;
        }
        if self.is_known(buyer, request) {
            return false;
        }
        empty_at > self.stocked_at.load(Ordering::Acquire)
    }

    /// The store said that nothing is left at this version, after accepting so many orders in all.
    pub fn observe_empty(&self, version: u64, accepted: u64) {
        // The count goes first: whoever sees the new version must not compare with an old count.
        self.accepted.fetch_max(accepted, Ordering::AcqRel);
        self.empty_at.fetch_max(version, Ordering::AcqRel);
    }

    /// The store said that units are left at this version.
    pub fn observe_stocked(&self, version: u64) {
        self.stocked_at.fetch_max(version, Ordering::AcqRel);
    }

    /// Remembers an accepted request. Call it before its answer leaves.
    pub fn remember(&self, buyer: &BuyerId, request: &RequestId) {
        let hash = self.hash(buyer, request);
        let mut shard = self.known[hash as usize % SHARDS]
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if shard.insert(hash) {
            self.known_count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// How many accepted requests this node knows.
    pub fn known(&self) -> u64 {
        self.known_count.load(Ordering::Acquire)
    }

    /// Up to where accepted orders were read from the store.
    pub fn read_up_to(&self) -> Position {
        *self
            .read_up_to
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Accepted orders were read up to here.
    pub fn has_read_up_to(&self, position: Position) {
        *self
            .read_up_to
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = position;
    }

    /// Whether this request was accepted, as far as this node knows. Two requests with one hash are taken for one another.
    pub fn is_known(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        let hash = self.hash(buyer, request);
        let shard = self.known[hash as usize % SHARDS]
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        shard.contains(&hash)
    }

    fn hash(&self, buyer: &BuyerId, request: &RequestId) -> u64 {
        let mut state = self.hasher.build_hasher();
        buyer.hash(&mut state);
        request.hash(&mut state);
        std::hash::Hasher::finish(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u32) -> (BuyerId, RequestId) {
        (
            BuyerId::try_new(&format!("b{n}")).unwrap(),
            RequestId::try_new(&format!("r{n}")).unwrap(),
        )
    }

    fn refuses(flag: &SoldOut, n: u32) -> bool {
        let (buyer, request) = ids(n);
        flag.refuses(&buyer, &request)
    }

    fn remember(flag: &SoldOut, n: u32) {
        let (buyer, request) = ids(n);
        flag.remember(&buyer, &request);
    }

    #[test]
    fn says_nothing_before_it_was_told() {
        assert!(!refuses(&SoldOut::default(), 1));
    }

    #[test]
    fn an_empty_segment_refuses_strangers_and_lets_known_requests_through() {
        let flag = SoldOut::default();
        remember(&flag, 1);
        flag.observe_empty(2, 1);
        assert!(refuses(&flag, 2));
        assert!(
            !refuses(&flag, 1),
            "a retry of an accepted request must reach the store"
        );
    }

    #[test]
    fn a_node_that_does_not_know_every_accepted_request_asks_the_store() {
        let flag = SoldOut::default();
        remember(&flag, 1);
        flag.observe_empty(3, 2);
        assert!(!refuses(&flag, 9));
        remember(&flag, 2);
        assert!(refuses(&flag, 9));
    }

    #[test]
    fn a_return_overrules_older_news_in_any_order() {
        let flag = SoldOut::default();
        flag.observe_stocked(8);
        flag.observe_empty(7, 0);
        assert!(
            !refuses(&flag, 1),
            "the empty answer was older than the return"
        );
        flag.observe_empty(9, 0);
        assert!(refuses(&flag, 1));
        flag.observe_stocked(10);
        assert!(!refuses(&flag, 1));
    }
}
