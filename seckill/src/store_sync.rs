//! Tells the stock store what the ledger has decided: units to take back, units to count as sold.
//!
//! The ledger writes an effect in the transaction that decided it; this worker repeats it until the store has answered. The
//! store does each once per order, so a crash between the store's answer and the removal of the row changes nothing.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use stock::{Selling, StockError, Transition};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    ids::{OrderId, SegmentId},
    ledger::{Action, LedgerError, OrderLedger},
    reconcile::{Invariant, Violations},
};
use limiter::backoff::Backoff;
use limiter::troubles::Troubles;

/// Orders told in one call of the store.
const BATCH: usize = 256;
/// Upper bound of the wait for an effect that another node wrote.
const POLL: Duration = Duration::from_millis(250);
/// The waits while the store does not answer.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_secs(5),
};

/// Told of each segment whose units went back, after the store has them: clears "sold out".
pub type ReleaseListener = Arc<dyn Fn(SegmentId) -> BoxFuture<'static, ()> + Send + Sync>;

/// Why a round stopped. What was not applied stays pending.
#[derive(Debug, thiserror::Error)]
pub enum StoreSyncError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store gave no answer for at least one segment; the others were done.
    #[error("effects of {segment} not applied: {source}")]
    Store {
        /// Which segment.
        segment: SegmentId,
        /// What the store said.
        source: StockError,
    },
}

/// Applies effects; one per node is enough, more do no harm.
#[derive(Clone)]
pub struct StoreSync {
    store: Arc<dyn Selling>,
    ledger: OrderLedger,
    violations: Violations,
    on_released: ReleaseListener,
}

static UNDONE: Troubles = Troubles::new("the store is not told of returns and payments");

impl StoreSync {
    /// Joins the parts.
    pub fn new(
        store: Arc<dyn Selling>,
        ledger: OrderLedger,
        violations: Violations,
        on_released: ReleaseListener,
    ) -> Self {
        Self {
            store,
            ledger,
            violations,
            on_released,
        }
    }

    /// Applies effects as they come, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let wait = match self.apply_pending().await {
                Ok(_) => {
                    UNDONE.works("all");
                    failures = 0;
                    POLL
                }
                Err(error) => {
                    failures += 1;
                    UNDONE.failed("all", &error);
                    BACKOFF.wait(failures, rand::random())
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = async {
                    // After a failure the bell does not shorten the wait.
                    if failures > 0 { tokio::time::sleep(wait).await } else { self.ledger.effects_due(wait).await }
                } => {}
            }
        }
    }

    /// One round over everything that is pending; answers how many effects were done. A segment that the store cannot answer
    /// for does not hold up the others.
    pub async fn apply_pending(&self) -> Result<usize, StoreSyncError> {
        let mut done = 0;
        let mut failed = None;
        for segment in self.ledger.segments_with_effects().await? {
            loop {
                match self.apply_batch(&segment).await {
                    Ok(0) => break,
                    Ok(applied) => done += applied,
                    Err(StoreSyncError::Store { segment, source }) => {
                        failed.get_or_insert(StoreSyncError::Store { segment, source });
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn apply_batch(&self, segment: &SegmentId) -> Result<usize, StoreSyncError> {
        let effects = self.ledger.effects(segment, BATCH).await?;
        for action in [Action::Confirm, Action::Release] {
            let of_action = effects.iter().filter(|effect| effect.action == action);
            let orders: Vec<OrderId> = of_action.map(|effect| effect.order).collect();
            if orders.is_empty() {
                continue;
            }
            let answers = match action {
                Action::Confirm => self.store.confirm_many(segment, &orders).await,
                Action::Release => self.store.release_many(segment, &orders).await,
            };
            let answers = answers.map_err(|source| StoreSyncError::Store {
                segment: segment.clone(),
                source,
            })?;
            for (order, answer) in orders.iter().zip(answers) {
                self.check(action, answer, segment, *order);
            }
            self.ledger.effects_done(action, &orders).await?;
            if action == Action::Release {
                (self.on_released)(segment.clone()).await;
            }
        }
        Ok(effects.len())
    }

    /// Tells of an answer with which store and ledger disagree.
    fn check(&self, action: Action, answer: Transition, segment: &SegmentId, order: OrderId) {
        let (invariant, what) = match (action, answer) {
            (_, Transition::Done)
            | (Action::Confirm, Transition::AlreadySold)
            | (Action::Release, Transition::AlreadyReleased) => return,
            // Paid in the ledger, given back in the store: its units may be sold again.
            (Action::Confirm, Transition::AlreadyReleased) => {
                (Invariant::Order4, "paid but released")
            }
            (Action::Confirm, Transition::Unknown) => (Invariant::Order2, "paid but unknown"),
            (Action::Release, Transition::AlreadySold) => (Invariant::Order4, "released but sold"),
            // A store that lost its last writes no longer holds these units: there is nothing to give back.
            (Action::Release, Transition::Unknown) => {
                return warn!(%segment, %order, "released order is unknown to the store");
            }
        };
        error!(invariant = invariant.as_str(), %segment, %order, what, "ledger and store disagree");
        self.violations.count(invariant);
    }
}
