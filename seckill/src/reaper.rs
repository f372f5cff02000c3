//! Returns what was not paid in time: once a second, in the ledger first. The ledger's compare-and-set makes it exactly once;
//! [`crate::effects`] then tells the store.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::WallClock,
    ledger::{LedgerError, OrderLedger},
};

/// Orders released in one transaction.
const BATCH: usize = 256;
/// How late a return may be.
const EVERY: Duration = Duration::from_secs(1);

/// Releases everything that is due now; answers how many orders.
pub async fn sweep(ledger: &OrderLedger, now_ms: u64) -> Result<usize, LedgerError> {
    let mut released = 0;
    loop {
        let round = ledger.expire_due(now_ms, BATCH).await?.released.len();
        released += round;
        if round < BATCH {
            return Ok(released);
        }
    }
}

/// Sweeps every second until `shutdown`.
pub async fn run(ledger: OrderLedger, clock: WallClock, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match sweep(&ledger, clock()).await {
            Ok(0) => {}
            Ok(orders) => info!(orders, "unpaid orders returned"),
            Err(error) => warn!(%error, "unpaid orders not returned, trying again"),
        }
    }
}
