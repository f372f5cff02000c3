//! Who may rebuild: a lease that one node holds at a time, with a token that grows with every change of hands.
//!
//! No lease can promise that its holder is alone (a process may sleep through its end), so the token goes along: the ledger
//! raises an epoch only for the newest one, and the store refuses every older epoch.

mod postgres;
mod redlock;
mod row;

use async_trait::async_trait;

pub use self::{postgres::AdvisoryLock, redlock::Redlock, row::RowLease};
use crate::ledger::LedgerError;

/// Why a lease could not be asked for. The next try may succeed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The ledger, which hands out the tokens, gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The database that keeps the lock gave no answer.
    #[error("recovery lock: {0}")]
    Lock(#[source] sqlx::Error),
}

/// A lease that can be taken, kept and given back.
#[async_trait]
pub trait Lease: Send {
    /// Takes the lease, or keeps it: the token while this node holds it, `None` while another does. The token changes when the
    /// lease was lost in between, even if it came back.
    async fn hold(&mut self) -> Result<Option<u64>, LeaseError>;

    /// Gives it back, so that the next node need not wait for its end.
    async fn give_up(&mut self) -> Result<(), LeaseError>;
}
