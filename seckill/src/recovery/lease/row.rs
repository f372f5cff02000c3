//! A lease as a row of the ledger, by the ledger's clock (INV-CLOCK-1): whoever asks with a clock of its own takes nothing early.

use std::time::Duration;

use async_trait::async_trait;

use super::{Lease, LeaseError};
use crate::{
    clock::WallClock,
    ledger::{OrderLedger, RECOVERY},
};

/// Ten looks of the recovery: one that came late does not cost the lease.
const LASTS: Duration = Duration::from_secs(10);

/// The lease of other work: how long the work of a node that died waits for another node, some of its ticks.
const WORK_LASTS: Duration = Duration::from_secs(30);

/// See the file's documentation.
pub struct RowLease {
    ledger: OrderLedger,
    clock: WallClock,
    owner: String,
    name: &'static str,
    lasts: Duration,
    token: Option<u64>,
}

impl RowLease {
    /// The lease of whoever rebuilds segments, not yet held. `owner` tells this process from all others.
    pub fn new(ledger: OrderLedger, clock: WallClock, owner: String) -> Self {
        Self::named(RECOVERY, LASTS, ledger, clock, owner)
    }

    /// The lease of other work that one node does on a timer.
    pub fn for_work(
        name: &'static str,
        ledger: OrderLedger,
        clock: WallClock,
        owner: String,
    ) -> Self {
        Self::named(name, WORK_LASTS, ledger, clock, owner)
    }

    /// It lasts so long beyond the last time that its holder asked for it.
    fn named(
        name: &'static str,
        lasts: Duration,
        ledger: OrderLedger,
        clock: WallClock,
        owner: String,
    ) -> Self {
        Self {
            ledger,
            clock,
            owner,
            name,
            lasts,
            token: None,
        }
    }
}

#[async_trait]
impl Lease for RowLease {
    async fn hold(&mut self) -> Result<Option<u64>, LeaseError> {
        let now_ms = self.ledger.now_ms((self.clock)()).await?;
        let until_ms = now_ms.saturating_add(self.lasts.as_millis() as u64);
        self.token = self
            .ledger
            .take_lease(self.name, &self.owner, now_ms, until_ms)
            .await?;
        Ok(self.token)
    }

    async fn give_up(&mut self) -> Result<(), LeaseError> {
        if let Some(token) = self.token.take() {
            self.ledger
                .give_up_lease(self.name, &self.owner, token)
                .await?;
        }
        Ok(())
    }
}
