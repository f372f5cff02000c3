//! The queue in front of the one task of a sku that looks at all its segments. [`crate::transfer`] works it.

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

/// Purchases of one sku that may wait for units; beyond it they are told to come back (503).
pub(crate) const REBALANCER_DEPTH: usize = 4096;
/// What a purchase learns of the sku.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There are units at home now, or may be soon: decide again.
    Units,
    /// All segments together have fewer than were asked for, and none is on its way.
    SoldOut {
        /// Units left, in all segments.
        left: u64,
    },
    /// Nobody can tell in time.
    Unknown,
}

pub(crate) enum Job {
    /// A purchase whose home has too few.
    Want {
        home: usize,
        quantity: u64,
        answer: oneshot::Sender<Found>,
    },
    /// Nobody waits, but a segment is empty and another is not.
    Balance,
}

/// The asking end.
pub struct Rebalancer {
    jobs: mpsc::Sender<Job>,
}

/// The working end; give it to [`crate::transfer::run_rebalancer`].
pub struct RebalancerWork {
    pub(crate) jobs: mpsc::Receiver<Job>,
}

/// A new rebalancer.
pub fn rebalancer() -> (Rebalancer, RebalancerWork) {
    let (sender, receiver) = mpsc::channel(REBALANCER_DEPTH);
    (
        Rebalancer { jobs: sender },
        RebalancerWork { jobs: receiver },
    )
}

impl Rebalancer {
    /// Waits until the home has units or it is known that there are none. A caller that goes away stops nothing: units that were
    /// on their way to it arrive, and are for sale there.
    pub async fn ask(&self, home: usize, quantity: u32, deadline: Instant) -> Found {
        let (answer, answered) = oneshot::channel();
        let want = Job::Want {
            home,
            quantity: u64::from(quantity),
            answer,
        };
        if self.jobs.try_send(want).is_err() {
            return Found::Unknown;
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Found::Unknown,
        }
    }

    /// Feeds an empty segment, if there is one. Dropped if so much waits that it will be fed anyway.
    pub fn balance(&self) {
        let _ = self.jobs.try_send(Job::Balance);
    }
}
