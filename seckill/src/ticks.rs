//! What the workers of a node wait for: the next tick of their timer, and a store that may not answer.

use std::time::Duration;

use stock::StockError;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// A worker's timer. After a tick that took long the next one comes a whole period later.
pub(crate) struct Ticks(Interval);

impl Ticks {
    /// Begins at once.
    pub(crate) fn every(period: Duration) -> Self {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(ticks)
    }

    /// Waits for the next tick; false when it is time to end.
    pub(crate) async fn next(&mut self, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            _ = self.0.tick() => true,
        }
    }
}

/// A call of the store that gives up. The store may have done it all the same, so it must be one that can be repeated.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StockError>>,
) -> Result<T, StockError> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(StockError::Unknown("no answer in time".to_owned())))
}
