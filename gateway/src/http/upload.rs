//! How far a request's body has come, for the side that waits for the response: the upstream's connection and its pool.

use std::{
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::MinRate;

/// How far a request's body has come, for the side that waits for the response.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    /// How much longer than the least rate allows the client took for what has come, in microseconds; never below zero, or what it sent
    /// quickly would let it drip later.
    behind: AtomicU64,
    /// Since when the client has been waited for, in microseconds after [`EPOCH`]; 0 while it is not.
    waits_since: AtomicU64,
    /// When the last piece was handed over.
    done_at: OnceLock<Instant>,
}

/// What instants are counted from where they must fit into an atomic.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What [`Progress`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Frames are still to come.
    Sending,
    /// All was handed over.
    Done,
    /// It exceeded the limit.
    TooLarge,
    /// The client paused for too long.
    TimedOut,
    /// The client left.
    Broken,
}

impl Progress {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Sending,
            1 => Stage::Done,
            2 => Stage::TooLarge,
            3 => Stage::TimedOut,
            _ => Stage::Broken,
        }
    }

    /// When all was handed over; the endpoint's time to answer counts from then.
    pub fn done_at(&self) -> Option<Instant> {
        self.done_at.get().copied()
    }

    /// How long the client has kept the upload waiting: for its next piece, or beyond what the least rate allows for all of them.
    pub fn late(&self, now: Instant, rate: MinRate) -> Duration {
        if self.stage() != Stage::Sending {
            return Duration::ZERO;
        }
        let behind = self.behind.load(Ordering::Relaxed);
        let waiting = match self.waits_since.load(Ordering::Relaxed) {
            0 => 0,
            since => micros(now).saturating_sub(since),
        };
        let waiting = Duration::from_micros(waiting);
        waiting.max(rate.late(Duration::from_micros(behind) + waiting, 0))
    }

    /// The client is waited for, from now on if it was not before.
    pub(super) fn wait(&self) {
        if self.waits_since.load(Ordering::Relaxed) == 0 {
            self.waits_since
                .store(micros(Instant::now()), Ordering::Relaxed);
        }
    }

    /// This many bytes have come.
    pub(super) fn take(&self, bytes: u64, rate: MinRate) {
        let since = self.waits_since.swap(0, Ordering::Relaxed);
        let waited = match since {
            0 => 0,
            since => micros(Instant::now()).saturating_sub(since),
        };
        let behind = Duration::from_micros(self.behind.load(Ordering::Relaxed) + waited);
        let behind = rate.late(behind, bytes).as_micros() as u64;
        self.behind.store(behind, Ordering::Relaxed);
    }

    pub(super) fn reach(&self, stage: Stage) {
        if stage == Stage::Done {
            // The last frame and the end behind it both say so; the first is meant.
            self.done_at.get_or_init(Instant::now);
        }
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

/// Microseconds after [`EPOCH`], at least 1.
fn micros(now: Instant) -> u64 {
    now.saturating_duration_since(*EPOCH).as_micros() as u64 + 1
}
