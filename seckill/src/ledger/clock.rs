//! The ledger's clock as a node's own: what all nodes of a ledger decide by, however their machines' clocks differ (INV-CLOCK-1).
//!
//! PostgreSQL has a clock. It is read now and then, and between two readings this machine's monotonic clock goes on from it: neither a
//! wrong wall clock nor a step of it is seen. SQLite is in this process, so its clock is this machine's.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{LedgerError, OrderLedger, engine::Engine};
use crate::clock::WallClock;
use limiter::troubles::Troubles;

use crate::{locks::Locked, ticks::Ticks};

/// How often it is read: two quartz clocks drift apart by far less than a millisecond meanwhile.
const READ_EVERY: Duration = Duration::from_secs(10);
/// A wall clock that is further off is told of.
const TOLD_MS: u64 = 2_000;

static UNREAD: Troubles = Troubles::new("the ledger's clock is not read");

/// A clock that follows the ledger's.
#[derive(Clone)]
pub struct LedgerClock {
    ledger: OrderLedger,
    own: WallClock,
    /// What it said, and when by the monotonic clock; `None` where the ledger has no clock of its own. Held for a copy.
    read: Arc<Mutex<Option<(u64, Instant)>>>,
}

impl OrderLedger {
    /// Its clock, read once. `own` is this machine's.
    pub async fn clock(&self, own: WallClock) -> Result<LedgerClock, LedgerError> {
        let clock = LedgerClock {
            ledger: self.clone(),
            own,
            read: Arc::default(),
        };
        clock.read().await?;
        let (own_ms, ledger_ms) = ((clock.own)(), clock.now_ms());
        if own_ms.abs_diff(ledger_ms) > TOLD_MS {
            warn!(
                own_ms,
                ledger_ms, "the clock of this node is not the ledger's, which is used"
            );
        }
        Ok(clock)
    }
}

impl LedgerClock {
    /// The same as the function that other parts take.
    pub fn wall(&self) -> WallClock {
        let clock = self.clone();
        Arc::new(move || clock.now_ms())
    }

    /// Reads it again and again until `shutdown`. While the ledger does not answer, the clock goes on by itself.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut ticks = Ticks::every(READ_EVERY);
        while ticks.next(&shutdown).await {
            match self.read().await {
                Ok(()) => UNREAD.works("all"),
                Err(error) => UNREAD.failed("all", &error),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        let read = *self.read.locked();
        match read {
            Some((ledger_ms, at)) => ledger_ms.saturating_add(at.elapsed().as_millis() as u64),
            None => (self.own)(),
        }
    }

    async fn read(&self) -> Result<(), LedgerError> {
        if self.ledger.engine == Engine::Sqlite {
            return Ok(());
        }
        let asked = Instant::now();
        let ledger_ms = self.ledger.now_ms(0).await?;
        // It was read about half way between question and answer.
        let at = asked + asked.elapsed() / 2;
        *self.read.locked() = Some((ledger_ms, at));
        Ok(())
    }
}
