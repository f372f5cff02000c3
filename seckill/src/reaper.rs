//! Returns what was not paid in time: once a second, in the ledger first. The ledger's compare-and-set makes it exactly once;
//! [`crate::store_sync`] then tells the store.
//!
//! A return cannot be undone and concerns orders that other nodes sold, so the ledger's clock decides what is due (INV-CLOCK-1). A
//! node whose own clock differs returns nothing, and says so once: the other nodes do the work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    clock::WallClock,
    ledger::{LedgerError, OrderLedger},
    ticks::Ticks,
};
use limiter::troubles::Troubles;

/// Orders released in one transaction.
const BATCH: usize = 256;
/// How late a return may be.
const EVERY: Duration = Duration::from_secs(1);

/// Releases everything that is due now; answers how many orders.
pub async fn sweep(ledger: &OrderLedger, now_ms: u64) -> Result<usize, LedgerError> {
    let mut released = 0;
    loop {
        let round = ledger.expire_due(now_ms, BATCH).await?.len();
        released += round;
        if round < BATCH {
            return Ok(released);
        }
    }
}

/// How far this node's clock may be from the ledger's. An order's time to pay was written by the clock of the store that sold it.
const MAX_SKEW_MS: u64 = 2_000;

/// The time by which this node may return orders. `None`: its own clock and the ledger's are too far apart. Pure.
pub fn trusted_now(ledger_ms: u64, own_ms: u64) -> Option<u64> {
    (ledger_ms.abs_diff(own_ms) <= MAX_SKEW_MS).then_some(ledger_ms)
}

/// One look: returns what is due by the ledger's clock. `None`: this node's clock is off, and nothing was decided.
pub async fn look(ledger: &OrderLedger, own_ms: u64) -> Result<Option<usize>, LedgerError> {
    let ledger_ms = ledger.now_ms(own_ms).await?;
    match trusted_now(ledger_ms, own_ms) {
        Some(now_ms) => sweep(ledger, now_ms).await.map(Some),
        None => Ok(None),
    }
}

static UNRETURNED: Troubles = Troubles::new("unpaid orders are not returned");

/// Looks every second until `shutdown`.
pub async fn run(ledger: OrderLedger, clock: WallClock, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(EVERY);
    let mut is_off = false;
    while ticks.next(&shutdown).await {
        match look(&ledger, clock()).await {
            Ok(Some(orders)) => {
                UNRETURNED.works("all");
                if std::mem::take(&mut is_off) {
                    info!(
                        "the clock of this node agrees with the ledger's again; unpaid orders are returned"
                    );
                }
                if orders > 0 {
                    info!(orders, "unpaid orders returned");
                }
            }
            Ok(None) => {
                if !std::mem::replace(&mut is_off, true) {
                    error!(
                        max_skew_ms = MAX_SKEW_MS,
                        "the clock of this node is not the ledger's; it returns no unpaid orders until they agree"
                    );
                }
            }
            Err(error) => UNRETURNED.failed("all", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_off_by_more_than_the_skew_decides_nothing() {
        let now = 1_700_000_000_000;
        assert_eq!(trusted_now(now, now + MAX_SKEW_MS), Some(now));
        assert_eq!(trusted_now(now, now - MAX_SKEW_MS), Some(now));
        assert_eq!(trusted_now(now, now + MAX_SKEW_MS + 1), None);
        assert_eq!(trusted_now(now, now - 3_600_000), None);
    }
}
