//! Which installation of the embedded store sells from this ledger. There is one: two would sell the same units, each from a stock of
//! its own.

use super::{
    LedgerError, OrderLedger,
    query::{from_row, query},
};

/// An installation, as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub install: String,
    /// Host and folder.
    pub address: String,
    /// Since when, in unix milliseconds.
    pub at_ms: u64,
}

/// When another installation may be replaced by the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// If it was at the same address: its disk was lost.
    SameAddress,
    /// Always: the operator has said so.
    Any,
}

from_row!(Registered: install, address, at_ms);

const REGISTER: &str = "INSERT INTO sale_installs (kind, install, place, at_ms) VALUES ('embedded', $1, $2, $3) \
    ON CONFLICT (kind) DO UPDATE SET install = $1, place = $2, \
        at_ms = CASE WHEN sale_installs.install = $1 THEN sale_installs.at_ms ELSE $3 END \
    WHERE sale_installs.install = $1 OR $4 = 2 OR ($4 = 1 AND sale_installs.place = $2)";
const REGISTERED: &str = "SELECT install, place, at_ms FROM sale_installs WHERE kind = 'embedded'";

impl OrderLedger {
    /// Registers an installation; answers who is registered now, which is another one if that may not be replaced.
    pub async fn register_install(
        &self,
        install: &str,
        address: &str,
        replace: Replace,
        now_ms: u64,
    ) -> Result<Registered, LedgerError> {
        let replace = match replace {
            Replace::SameAddress => 1_i64,
            Replace::Any => 2,
        };
        query!(REGISTER, install, address, now_ms, replace)
            .run(&self.pool)
            .await?;
        query!(REGISTERED).one(&self.pool).await
    }
}
