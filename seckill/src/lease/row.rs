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
    held: Option<Held>,
}

/// A term that this node has.
#[derive(Clone, Copy)]
struct Held {
    token: u64,
    /// When it was asked for, by the node's clock: it ends no earlier than `lasts` after that.
    asked_ms: u64,
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
            held: None,
        }
    }

    /// The token, in the first half of the term: nobody else can have the lease, and to renew it would only cost a commit. The second
    /// half is for renewing it, with several tries.
    fn is_sure(&self, now_ms: u64) -> Option<u64> {
        let held = self.held?;
        let passed = now_ms.checked_sub(held.asked_ms)?;
        (u128::from(passed) < self.lasts.as_millis() / 2).then_some(held.token)
    }
}

#[async_trait]
impl Lease for RowLease {
    async fn hold(&mut self) -> Result<Option<u64>, LedgerError> {
        let asked_ms = (self.clock)();
        if let Some(token) = self.is_sure(asked_ms) {
            return Ok(Some(token));
        }
        let now_ms = self.ledger.now_ms(asked_ms).await?;
        let until_ms = now_ms.saturating_add(self.lasts.as_millis() as u64);
        let taken = (self.ledger).take_lease(self.work, &self.owner, now_ms, until_ms);
        let token = taken.await?;
        self.held = token.map(|token| Held { token, asked_ms });
        Ok(token)
    }

    async fn give_up(&mut self) -> Result<(), LedgerError> {
        if let Some(held) = self.held.take() {
            self.ledger
                .give_up_lease(self.work, &self.owner, held.token)
                .await?;
        }
        Ok(())
    }
}
