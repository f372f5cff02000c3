//! Where the buckets live: a table of fixed size.
//!
//! A set-associative table, as in a processor's cache: a key's hash names one *set* of eight places, and the key is in one of
//! these or nowhere. Looking up, inserting and evicting all touch at most three cache lines, at any load and under
//! attack, and nothing is allocated after start. One mutex guards a shard of sets.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use ahash::RandomState;

use super::{
    RateCounts, RateKey,
    gcra::{Gcra, Verdict},
};

/// Places of a set. Eight 128-bit keys are two cache lines, their times one more.
const WAYS: usize = 8;

/// At most this many mutexes: far more than cores, so that two cores seldom meet on one.
const SHARDS_MAX: usize = 64;

/// A quarter of a megabyte: walked in some ten microseconds, for which a check may have to wait.
const SWEPT_AT_ONCE: usize = 1024;

/// The bounded table of buckets.
#[derive(Debug)]
pub(super) struct BucketTable {
    /// Seeded at random: a client cannot choose addresses that fall into somebody else's set.
    hasher: RandomState,
    /// Where the next sweep goes on, counted in sets over all shards.
    swept: AtomicUsize,
    /// A power of two of shards, each with a power of two of sets.
    shards: Box<[Shard]>,
    sets_per_shard: usize,
}

/// On cache lines of its own, so that neighbours' locks do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Sets>);

#[derive(Debug)]
struct Sets {
    sets: Box<[Set]>,
    /// Places in use, refilled buckets included until they are swept.
    keys: usize,
    counts: RateCounts,
}

/// A bucket's state is its theoretical arrival time in nanoseconds: when it will be full again. No taken place
/// holds 0, since a request moves the time ahead by at least one nanosecond; so 0 marks a free place.
#[derive(Clone, Copy, Debug)]
struct Set {
    keys: [RateKey; WAYS],
    full_at: [u64; WAYS],
}

const FREE: u64 = 0;

const EMPTY_SET: Set = Set {
    keys: [RateKey::SHARED; WAYS],
    full_at: [FREE; WAYS],
};

impl BucketTable {
    /// Room for at least `capacity` buckets, rounded up to a power of two.
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        let sets = capacity.get().div_ceil(WAYS).next_power_of_two();
        let shards = sets.min(SHARDS_MAX);
        let sets_per_shard = sets / shards;
        let shard = || {
            Shard(Mutex::new(Sets {
                sets: vec![EMPTY_SET; sets_per_shard].into_boxed_slice(),
                keys: 0,
                counts: RateCounts::default(),
            }))
        };
        Self {
            hasher: RandomState::new(),
            swept: AtomicUsize::default(),
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            sets_per_shard,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.shards.len() * self.sets_per_shard * WAYS
    }

    /// Frees the places of buckets that are full by `now` among the next `sets` sets, never holding a lock for more than
    /// [`SWEPT_AT_ONCE`] of them.
    pub(super) fn sweep(&self, now: u64, sets: usize) {
        let mut left = sets.min(self.sets());
        while left > 0 {
            let at = self.swept.load(Ordering::Relaxed) % self.sets();
            let (shard, from) = (at / self.sets_per_shard, at % self.sets_per_shard);
            let count = left.min(SWEPT_AT_ONCE).min(self.sets_per_shard - from);
            self.shards[shard].lock().sweep(from..from + count, now);
            self.swept.store(at + count, Ordering::Relaxed);
            left -= count;
        }
    }

    /// How many sets there are.
    pub(super) fn sets(&self) -> usize {
        self.shards.len() * self.sets_per_shard
    }

    /// Decides about a request of this key at `now`, and remembers it if it is allowed.
    pub(super) fn decide(&self, key: &RateKey, gcra: &Gcra, now: u64) -> Verdict {
        let (mut guard, set_at) = self.place_of(key);
        let sets = &mut *guard;
        let set = &mut sets.sets[set_at];
        let known = set.way_of(key);
        let verdict = gcra.decide(known.map_or(FREE, |way| set.full_at[way]), now);
        let Verdict::Allowed { full_at, .. } = verdict else {
            sets.counts.limited += 1;
            return verdict;
        };
        sets.counts.allowed += 1;
        let way = known.unwrap_or_else(|| {
            let (way, given_up) = set.fullest();
            if given_up == FREE {
                sets.keys += 1;
            } else if given_up > now {
                sets.counts.evicted += 1;
            }
            set.keys[way] = *key;
            way
        });
        set.full_at[way] = full_at;
        verdict
    }

    /// Places in use, refilled buckets included until they are swept.
    pub(super) fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().keys).sum()
    }

    /// Undoes one allowed request of a bucket, whose full time it had moved by `step` nanoseconds.
    pub(super) fn give_back(&self, key: &RateKey, step: u64) {
        let (mut guard, set_at) = self.place_of(key);
        let sets = &mut *guard;
        let set = &mut sets.sets[set_at];
        if let Some(way) = set.way_of(key) {
            set.full_at[way] = set.full_at[way].saturating_sub(step);
            sets.keys -= usize::from(set.full_at[way] == FREE);
            sets.counts.allowed -= 1;
        }
    }

    /// The shard of a key, locked, and its set there.
    fn place_of(&self, key: &RateKey) -> (MutexGuard<'_, Sets>, usize) {
        let hash = self.hasher.hash_one(key);
        let shard = &self.shards[hash as usize & (self.shards.len() - 1)];
        // Other bits of the hash than those that chose the shard.
        let set_at = (hash >> 32) as usize & (self.sets_per_shard - 1);
        (shard.lock(), set_at)
    }

    /// The sum over all shards. Shards are read one after the other: exact per shard, approximate as a whole while in use.
    pub(super) fn counts(&self) -> RateCounts {
        self.shards.iter().map(|shard| shard.lock().counts).sum()
    }
}

impl Shard {
    /// A poisoned table is used on: its values are valid after each single assignment.
    fn lock(&self) -> MutexGuard<'_, Sets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sets {
    /// Frees the places of buckets that were full before `now`.
    fn sweep(&mut self, sets: Range<usize>, now: u64) {
        let places = self.sets[sets].iter_mut().flat_map(|set| &mut set.full_at);
        for full_at in places {
            if *full_at != FREE && *full_at < now {
                *full_at = FREE;
                self.keys -= 1;
            }
        }
    }
}

impl Set {
    /// The place of a key that is here.
    fn way_of(&self, key: &RateKey) -> Option<usize> {
        (0..WAYS).find(|&way| self.full_at[way] != FREE && self.keys[way] == *key)
    }

    /// The place whose bucket is full soonest, free places first, and when that is.
    fn fullest(&self) -> (usize, u64) {
        let mut best = (0, self.full_at[0]);
        for way in 1..WAYS {
            if self.full_at[way] < best.1 {
                best = (way, self.full_at[way]);
            }
        }
        best
    }
}
