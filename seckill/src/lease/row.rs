//! A lease as a row of the ledger, by the ledger's clock (INV-CLOCK-1): a node whose own clock is ahead takes nothing early.
//! Each question is one statement, so it works behind a pooler that gives every transaction another session.

use std::time::Duration;

use async_trait::async_trait;

use super::Lease;
use crate::{
    clock::WallClock,
    ledger::{LedgerError, OrderLedger, REBUILD},
};

/// Four looks of the rebuilder: one that came late does not cost the lease, and buyers of a lost segment wait no longer than this for
/// the node that takes over.
const REBUILD_LASTS: Duration = Duration::from_secs(4);
/// The same for all other work: some ticks of its timer.
const LASTS: Duration = Duration::from_secs(30);

/// See the file's documentation.
pub struct RowLease {
    ledger: OrderLedger,
    clock: WallClock,
    owner: String,
    work: &'static str,
    lasts: Duration,
    token: Option<u64>,
}

impl RowLease {
    /// The lease of some work, not yet held. `owner` tells this process from all others.
    pub fn new(work: &'static str, ledger: OrderLedger, clock: WallClock, owner: String) -> Self {
        Self {
            ledger,
            clock,
            owner,
            work,
            lasts: if work == REBUILD {
                REBUILD_LASTS
            } else {
                LASTS
            },
            token: None,
        }
    }
}

#[async_trait]
impl Lease for RowLease {
    async fn hold(&mut self) -> Result<Option<u64>, LedgerError> {
        let now_ms = self.ledger.now_ms((self.clock)()).await?;
        let until_ms = now_ms.saturating_add(self.lasts.as_millis() as u64);
        self.token = self
            .ledger
            .take_lease(self.work, &self.owner, now_ms, until_ms)
            .await?;
        Ok(self.token)
    }

    async fn give_up(&mut self) -> Result<(), LedgerError> {
        if let Some(token) = self.token.take() {
            self.ledger
                .give_up_lease(self.work, &self.owner, token)
                .await?;
        }
        Ok(())
    }
}
