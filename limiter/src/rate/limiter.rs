//! The decision itself: one token bucket per key, in a table of fixed size. The time is an argument.

use std::{iter::Sum, num::NonZeroUsize, time::Duration};

use tokio::time::Instant;

use super::{
    RateKey, RateQuota,
    gcra::{Gcra, Verdict},
    table::BucketTable,
};

/// Token buckets by key, all with the same quota. Shared by all cores behind an `Arc`.
#[derive(Debug)]
pub struct RateLimiter {
    gcra: Gcra,
    table: BucketTable,
    quota: RateQuota,
    /// Instants become nanoseconds since this one.
    start: Instant,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let it through.
    Allowed {
        /// How many more requests the bucket holds right now.
        remaining: u32,
    },
    /// Refuse it at once.
    Limited(Limited),
}

/// A refusal, with all that its answer should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// When the next request of this client would be let through; exact if it sends nothing in between.
    pub retry_after: Duration,
    /// The quota that was exceeded.
    pub quota: RateQuota,
}

/// What a limiter has decided since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateCounts {
    /// Requests let through.
    pub allowed: u64,
    /// Requests refused.
    pub limited: u64,
    /// Buckets forgotten before they had refilled, because the table was full. If it grows, raise the capacity.
    pub evicted: u64,
}

impl RateLimiter {
    /// A limiter for at least `capacity` clients at a time (rounded up to a power of two; 24 bytes each, allocated now).
    pub fn new(quota: RateQuota, capacity: NonZeroUsize, start: Instant) -> Self {
        Self {
            gcra: Gcra::new(quota),
            table: BucketTable::new(capacity),
            quota,
            start,
        }
    }

    /// Takes one request out of the key's bucket, or says how long to wait.
    pub fn check(&self, key: RateKey, now: Instant) -> Decision {
        let now = self.since_start(now);
        match self.table.decide(&key, &self.gcra, now) {
            Verdict::Allowed { remaining, .. } => Decision::Allowed { remaining },
            Verdict::Limited { wait } => Decision::Limited(Limited {
                retry_after: Duration::from_nanos(wait),
                quota: self.quota,
            }),
        }
    }

    /// Frees the places of buckets that have refilled, in the next part of the table, a sixteenth of it: for a timer of the control plane
    /// that runs often, before it reads [`keys`](Self::keys). No lock is held for longer than some ten microseconds, however large the
    /// table. Decisions do not depend on it.
    pub fn sweep_part(&self, now: Instant) {
        let now = self.since_start(now);
        self.table.sweep(now, self.table.sets().div_ceil(16));
    }

    /// Undoes one [`Decision::Allowed`] of this key, for a request that was refused elsewhere after all.
    pub fn give_back(&self, key: RateKey) {
        self.table.give_back(&key, self.gcra.interval());
    }

    /// Clients held, refilled ones included until the next sweep. Never above [`capacity`](Self::capacity).
    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    /// The most clients ever held at a time.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Decisions made so far, for the metrics' reader: counting costs the path no atomic of its own.
    pub fn counts(&self) -> RateCounts {
        self.table.counts()
    }

    /// The quota of every bucket.
    pub fn quota(&self) -> RateQuota {
        self.quota
    }

    fn since_start(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

impl Sum for RateCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, one| Self {
            allowed: sum.allowed + one.allowed,
            limited: sum.limited + one.limited,
            evicted: sum.evicted + one.evicted,
        })
    }
}

#[cfg(test)]
mod tests;
