//! A lease as a row of the ledger: for SQLite, which belongs to one machine, so that all its processes read one clock.

use std::time::Duration;

use async_trait::async_trait;

use super::{Lease, LeaseError};
use crate::{
    clock::WallClock,
    ledger::{OrderLedger, RECOVERY},
};

/// Ten looks of the recovery: one that came late does not cost the lease.
const LASTS: Duration = Duration::from_secs(10);

/// See the file's documentation.
pub struct RowLease {
    ledger: OrderLedger,
    clock: WallClock,
    owner: String,
    token: Option<u64>,
}

impl RowLease {
    /// A lease not yet held. `owner` tells this process from all others.
    pub fn new(ledger: OrderLedger, clock: WallClock, owner: String) -> Self {
        Self {
            ledger,
            clock,
            owner,
            token: None,
        }
    }
}

#[async_trait]
impl Lease for RowLease {
    async fn hold(&mut self) -> Result<Option<u64>, LeaseError> {
        let now_ms = (self.clock)();
        let until_ms = now_ms.saturating_add(LASTS.as_millis() as u64);
        self.token = self
            .ledger
            .take_lease(RECOVERY, &self.owner, now_ms, until_ms)
            .await?;
        Ok(self.token)
    }

    async fn give_up(&mut self) -> Result<(), LeaseError> {
        if let Some(token) = self.token.take() {
            self.ledger
                .give_up_lease(RECOVERY, &self.owner, token)
                .await?;
        }
        Ok(())
    }
}
