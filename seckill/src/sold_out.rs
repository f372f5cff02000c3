//! Saying "sold out" from memory: no store call, no lock across segments, no wrong answer to a retry.
//!
//! After the last unit is gone almost every request is a refusal, so it has to be cheap. Four things make it safe:
//! - *Versions.* Every change of a segment raises its version. "Empty as of version 7" is overruled by "units as of version 8"
//!   and by nothing older, so a slow answer can never hide a return or a restock.
//! - *Epochs.* A rebuilt segment counts its versions and its orders anew, so each epoch has a memory of its own and begins
//!   with none. What is told of an older epoch is not listened to.
//! - *Known orders.* A retry of an accepted request must replay its order even when nothing is left. So this node answers from
//!   memory only while it knows every request id that the buyer's segment had accepted when it was last seen empty, and only for
//!   other ids. (What another node accepted and emptied again since then is known after the next refresh, half a second later;
//!   until then its retry, if it comes here, may be told "sold out" once.)
//! - *All segments* ([`SkuSoldOut`]). A sku that is cut into segments is empty when all of them were found empty while no unit
//!   was on its way between them, and nothing was heard of a unit since.

use std::{
    hash::{BuildHasher, Hash},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ahash::{AHashSet, RandomState};
use arc_swap::ArcSwap;
use stock::{OrderQueue, Position, SegmentStatus, StockError};

use crate::{
    ids::{BuyerId, RequestId, SegmentId},
    locks::{Locked, Shared},
};

/// Enough that the data plane's cores seldom meet on one lock.
const SHARDS: usize = 16;
/// Accepted orders read from the store at once.
const TAIL_PAGE: usize = 1000;

/// What one node remembers about the stock of one segment.
#[derive(Debug)]
pub struct SoldOut {
    /// Swapped whole when the segment moves to another epoch.
    memory: ArcSwap<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    epoch: u64,
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
            memory: ArcSwap::from_pointee(Memory::default()),
        }
    }
}

impl SoldOut {
    /// Whether the segment is certainly empty and this request certainly new: then, of a sku with one segment, the answer is
    /// "sold out".
    pub fn refuses(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        let memory = self.memory.load();
        // `stocked_at` is read last: a return that lands in between makes this say "no", which costs one store call.
        let empty_at = memory.empty_at.load(Ordering::Acquire);
        empty_at > 0
            && memory.is_new(buyer, request)
            && empty_at > memory.stocked_at.load(Ordering::Acquire)
    }

    /// Whether the segment was empty when it was last heard of.
    pub fn is_empty(&self) -> bool {
        let memory = self.memory.load();
        let empty_at = memory.empty_at.load(Ordering::Acquire);
        empty_at > 0 && empty_at > memory.stocked_at.load(Ordering::Acquire)
    }

    /// Whether this segment has certainly not accepted the request. Said only once the segment was seen empty in this epoch.
    pub fn is_new(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        let memory = self.memory.load();
        memory.empty_at.load(Ordering::Acquire) > 0 && memory.is_new(buyer, request)
    }

    /// Whether this node remembers that the segment accepted the request.
    pub fn is_known(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        self.memory.load().is_known(buyer, request)
    }

    /// The store said that nothing is left at this version of this epoch, after accepting so many orders in all.
    pub fn observe_empty(&self, epoch: u64, version: u64, accepted: u64) {
        self.in_epoch(epoch, |memory| {
            // The count is written first: a reader of the new version must not compare with an old count.
            memory.accepted.fetch_max(accepted, Ordering::AcqRel);
            memory.empty_at.fetch_max(version, Ordering::AcqRel);
        });
    }

    /// The store said that units are left at this version of this epoch. Answers whether that is news: not older than the last
    /// time the segment was seen empty.
    pub fn observe_stocked(&self, epoch: u64, version: u64) -> bool {
        let news = self.in_epoch(epoch, |memory| {
            memory.stocked_at.fetch_max(version, Ordering::AcqRel);
            version >= memory.empty_at.load(Ordering::Acquire)
        });
        news.unwrap_or(false)
    }

    /// Remembers an accepted request. Call it before its answer leaves.
    pub fn remember(&self, epoch: u64, buyer: &BuyerId, request: &RequestId) {
        self.in_epoch(epoch, |memory| memory.remember(buyer, request));
    }

    /// Forgets everything: nobody will ask any more.
    pub fn forget(&self) {
        self.memory.rcu(|memory| Memory {
            epoch: memory.epoch,
            ..Memory::default()
        });
    }

    /// Reads on, from where this node was, until it knows every request that the snapshot counts. A node that accepted
    /// everything itself knows everything.
    pub async fn catch_up(
        &self,
        id: &SegmentId,
        store: &dyn OrderQueue,
        snapshot: &SegmentStatus,
    ) -> Result<(), StockError> {
        self.enter(snapshot.epoch);
        let memory = self.memory.load_full();
        while memory.epoch == snapshot.epoch
            && memory.known_count.load(Ordering::Acquire) < snapshot.accepted
        {
            let after = *memory.read_up_to.locked();
            let page = store.accepted_after(id, after, TAIL_PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            for (_, order) in &page {
                memory.remember(&order.buyer, &order.request);
            }
            let mut position = memory.read_up_to.locked();
            *position = (*position).max(*last);
        }
        Ok(())
    }

    /// Acts on the memory of an epoch; `None` if that epoch is over.
    fn in_epoch<T>(&self, epoch: u64, act: impl FnOnce(&Memory) -> T) -> Option<T> {
        self.enter(epoch);
        let memory = self.memory.load();
        (memory.epoch == epoch).then(|| act(&memory))
    }

    /// Begins a memory for an epoch that is newer than the one it has.
    fn enter(&self, epoch: u64) {
        if self.memory.load().epoch < epoch {
            self.memory.rcu(|memory| {
                if memory.epoch >= epoch {
                    return memory.clone();
                }
                std::sync::Arc::new(Memory {
                    epoch,
                    ..Memory::default()
                })
            });
        }
    }
}

impl Memory {
    /// Whether the request was certainly not accepted.
    fn is_new(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        self.known_count.load(Ordering::Acquire) >= self.accepted.load(Ordering::Acquire)
            && !self.is_known(buyer, request)
    }

    fn remember(&self, buyer: &BuyerId, request: &RequestId) {
        let hash = self.hash(buyer, request);
        let mut shard = self.known[hash as usize % SHARDS].writing();
        if shard.insert(hash) {
            self.known_count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether this request was accepted, as far as this node knows. Two requests with one hash are taken for one another.
    fn is_known(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        let hash = self.hash(buyer, request);
        let shard = self.known[hash as usize % SHARDS].reading();
        shard.contains(&hash)
    }

    fn hash(&self, buyer: &BuyerId, request: &RequestId) -> u64 {
        let mut state = self.hasher.build_hasher();
        buyer.hash(&mut state);
        request.hash(&mut state);
        std::hash::Hasher::finish(&state)
    }
}

/// What one node remembers about a sku that is cut into segments: whether all of them together are empty. Found out by a look at
/// all segments and at the ledger's transfers ([`crate::transfer`]); any news of a unit, or of one that changed its segment, ends it.
#[derive(Debug, Default)]
pub struct SkuSoldOut {
    /// Counts the news of units.
    news: AtomicU64,
    /// One more than the count of news when the look began that found nothing; 0 if none did.
    empty_as_of: AtomicU64,
    /// Units that had ever entered or left a segment when the look was made. The counts only grow within an epoch, so two equal
    /// sums are equal counts.
    moved: AtomicU64,
}

impl SkuSoldOut {
    /// Whether the whole sku is certainly empty.
    pub fn is_empty(&self) -> bool {
        let empty_as_of = self.empty_as_of.load(Ordering::Acquire);
        // Read last: news that land in between make this say "no".
        empty_as_of > self.news.load(Ordering::Acquire)
    }

    /// There may be a unit.
    pub fn news(&self) {
        self.news.fetch_add(1, Ordering::AcqRel);
    }

    /// Begins a look; give what it answers to [`SkuSoldOut::found_empty`].
    pub fn look(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// The look that began at `mark` found nothing; `moved` units had ever entered or left a segment.
    pub fn found_empty(&self, mark: u64, moved: u64) {
        self.moved.store(moved, Ordering::Release);
        self.empty_as_of.fetch_max(mark + 1, Ordering::AcqRel);
    }

    /// Units that have entered or left a segment up to now, as somebody read them. More of them than at the look are news.
    pub fn observe_moved(&self, moved: u64) {
        if moved != self.moved.load(Ordering::Acquire) {
            self.news();
        }
    }
}

#[cfg(test)]
mod tests;
