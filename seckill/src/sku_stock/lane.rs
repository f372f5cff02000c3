//! The queue of purchases in front of one segment. [`crate::purchase`] fills and works it.

use std::sync::{Arc, Mutex};

use stock::{Purchase, StockError, Verdict};
use tokio::sync::{mpsc, oneshot};

use crate::{
    ids::{BuyerId, RequestId},
    locks::Locked,
};

/// Purchases in one store call at most. Redis does nothing else in the 2 ms that it takes for so many, and a fifth less work for each
/// than in calls of half the size (docs/adr/0009); its other callers wait no longer than a timer's tick.
pub const BATCH_MAX: usize = 256;
/// Purchases that may wait in one lane. Beyond it a request is refused at once (503, retry) instead of waiting in vain: at the
/// slowest measured rate (10,000/s) a full lane is four tenths of a second deep.
pub const LANE_DEPTH: usize = 4096;

pub(crate) struct Waiting {
    pub(crate) purchase: Purchase,
    pub(crate) answer: oneshot::Sender<Result<Verdict, StockError>>,
}

/// The waiting end of a lane.
pub struct Lane {
    pub(crate) waiting: mpsc::Sender<Waiting>,
    /// The batch that the store is deciding right now. A `std` lock: held to swap or to look through at most [`BATCH_MAX`].
    deciding: Mutex<Arc<[Purchase]>>,
}

impl Lane {
    /// Whether this request is being decided right now: then "no such order" would be said too early.
    pub fn is_deciding(&self, buyer: &BuyerId, request: &RequestId) -> bool {
        let deciding = self.deciding.locked().clone();
        deciding
            .iter()
            .any(|purchase| purchase.buyer == *buyer && purchase.request == *request)
    }

    /// Puts a purchase at the end; `None` if the lane is full or its task has ended.
    pub(crate) fn push(
        &self,
        purchase: Purchase,
    ) -> Option<oneshot::Receiver<Result<Verdict, StockError>>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.waiting.try_send(Waiting { purchase, answer });
        sent.ok().map(|()| answered)
    }

    /// How many wait.
    pub fn depth(&self) -> usize {
        self.waiting.max_capacity() - self.waiting.capacity()
    }

    pub(crate) fn set_deciding(&self, purchases: Arc<[Purchase]>) {
        *self.deciding.locked() = purchases;
    }
}

/// The working end of a lane; give it to [`crate::purchase::run_lane`].
pub struct LaneWork {
    pub(crate) waiting: mpsc::Receiver<Waiting>,
}

/// A new lane.
pub fn lane() -> (Lane, LaneWork) {
    let (sender, receiver) = mpsc::channel(LANE_DEPTH);
    let lane = Lane {
        waiting: sender,
        deciding: Mutex::new(Arc::default()),
    };
    (lane, LaneWork { waiting: receiver })
}
