//! The ledger's clock as a node's own: what all nodes of a ledger decide by, however their machines' clocks differ (INV-CLOCK-1).
//!
//! PostgreSQL has a clock. It is read now and then, and between two readings this machine's monotonic clock goes on from it: neither a
//! wrong wall clock nor a step of it is seen. SQLite is in this process, so its clock is this machine's.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use limiter::troubles::Troubles;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{LedgerError, OrderLedger, engine::Engine, query::query};
use crate::clock::{WallClock, WrongClock, check_at_start};

use crate::{locks::Locked, ticks::Ticks};

/// How often it is read: two quartz clocks drift apart by far less than a millisecond meanwhile.
const READ_EVERY: Duration = Duration::from_secs(10);
/// A wall clock that is further off is told of.
const TOLD_MS: u64 = 2_000;

/// How many of these a ledger without a clock of its own waits before it writes the time down again: what a start compares with days and
/// hours need not cost a commit every ten seconds.
const WRITE_EVERY: u32 = 60;
/// The row of that time, among the leases: nobody ever holds it.
const NEWEST: &str = "INSERT INTO sale_leases (name, token, owner, until_ms) VALUES ('clock', 0, '', $1) \
    ON CONFLICT (name) DO UPDATE SET until_ms = $1";
/// Leases of a process that died are as new as that row.
const NEWEST_KNOWN: &str = "SELECT COALESCE(MAX(until_ms), 0) FROM sale_leases";
/// What would wait until a wrong time comes.
const SET_BACK: [&str; 2] = [
    "UPDATE sale_leases SET until_ms = $1 WHERE until_ms > $1",
    "UPDATE order_outbox SET next_at_ms = $1 WHERE next_at_ms > $1 AND delivered_at_ms = 0 AND dead_at_ms = 0",
];

/// Why a node does not go by a clock.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The ledger does not say.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// By what the ledger knows it cannot be right. It may be set right meanwhile, so another try may succeed.
    #[error(transparent)]
    Wrong(#[from] WrongClock),
}

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
    /// Whether this machine's clock can be right by the newest time that the ledger knows, where that clock is the ledger's too. With
    /// `accepts` it is taken for right: what waits for a later time waits no longer.
    pub async fn check_clock(&self, own_ms: u64, accepts: bool) -> Result<(), ClockError> {
        if self.engine == Engine::Postgres {
            return Ok(());
        }
        if accepts {
            for statement in SET_BACK {
                query!(statement, own_ms).run(&self.pool).await?;
            }
        } else {
            let newest_ms = query!(NEWEST_KNOWN).one(&self.pool).await?;
            check_at_start(newest_ms, own_ms)?;
        }
        Ok(self.write_time(own_ms).await?)
    }

    async fn write_time(&self, now_ms: u64) -> Result<(), LedgerError> {
        query!(NEWEST, now_ms).run(&self.pool).await?;
        Ok(())
    }

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
        for tick in 0u32.. {
            if !ticks.next(&shutdown).await {
                return;
            }
            let done = match self.ledger.engine {
                Engine::Postgres => self.read().await,
                Engine::Sqlite if tick % WRITE_EVERY == WRITE_EVERY - 1 => {
                    self.ledger.write_time(self.now_ms()).await
                }
                Engine::Sqlite => continue,
            };
            match done {
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
