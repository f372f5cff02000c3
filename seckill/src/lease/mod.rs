//! A lease: work that one node does at a time holds it, with a token that grows with every change of hands.
//!
//! No lease can promise that its holder is alone (a process may sleep through its end), so the token goes along: the ledger
//! raises an epoch only for the newest one, and the store refuses every older epoch.

mod redlock;
mod row;

use async_trait::async_trait;

pub use self::{redlock::Redlock, row::RowLease};
use crate::ledger::LedgerError;

/// A lease that can be taken, kept and given back.
#[async_trait]
pub trait Lease: Send {
    /// Takes the lease, or keeps it: the token while this node holds it, `None` while another does. The token changes when the
    /// lease was lost in between, even if it came back. An error means that the ledger, which hands out the tokens, gave no answer;
    /// the next try may succeed.
    async fn hold(&mut self) -> Result<Option<u64>, LedgerError>;

    /// Gives it back, so that the next node need not wait for its end.
    async fn give_up(&mut self) -> Result<(), LedgerError>;
}
