//! The row of a lease: who has it until when, and the fencing token. A lease that is held elsewhere draws its tokens here too.

use super::{LedgerError, OrderLedger, query::query};

/// The lease of the node that rebuilds segments; [`OrderLedger::raise_epoch`] asks for its token.
pub const REBUILD: &str = "recovery";
/// The lease of the node that compares sales with the store on a timer.
pub const RECONCILE: &str = "reconcile";
/// The lease of the node that checks the payment books on a timer.
pub const BOOKS: &str = "books";

const NEXT_TOKEN: &str = "INSERT INTO sale_leases (name, token, owner, until_ms) VALUES ($1, 1, $2, 0) \
    ON CONFLICT (name) DO UPDATE SET token = sale_leases.token + 1, owner = $2 RETURNING token";
const TAKE: &str = "INSERT INTO sale_leases (name, token, owner, until_ms) VALUES ($1, 1, $2, $4) \
    ON CONFLICT (name) DO UPDATE SET \
        token = CASE WHEN sale_leases.owner = $2 AND sale_leases.until_ms > $3 THEN sale_leases.token ELSE sale_leases.token + 1 END, \
        owner = $2, until_ms = $4 \
    WHERE sale_leases.owner = $2 OR sale_leases.until_ms <= $3 RETURNING token";
const GIVE_UP: &str =
    "UPDATE sale_leases SET until_ms = 0 WHERE name = $1 AND owner = $2 AND token = $3";
const TOKEN: &str = "SELECT token FROM sale_leases WHERE name = $1";

impl OrderLedger {
    /// A higher token than any before, for a node that holds the lease elsewhere (a quorum of Redis servers).
    pub async fn next_token(&self, name: &str, owner: &str) -> Result<u64, LedgerError> {
        query!(NEXT_TOKEN, name, owner).one(&self.pool).await
    }

    /// The newest token; 0 before the first.
    pub async fn token(&self, name: &str) -> Result<u64, LedgerError> {
        let token = query!(TOKEN, name).first(self.reads()).await?;
        Ok(token.unwrap_or(0))
    }

    /// Takes or prolongs a lease that is a row. `None` while another node has it.
    pub async fn take_lease(
        &self,
        name: &str,
        owner: &str,
        now_ms: u64,
        until_ms: u64,
    ) -> Result<Option<u64>, LedgerError> {
        let taken = query!(TAKE, name, owner, now_ms, until_ms);
        taken.first(&self.pool).await
    }

    /// Gives such a lease back before its time.
    pub async fn give_up_lease(
        &self,
        name: &str,
        owner: &str,
        token: u64,
    ) -> Result<(), LedgerError> {
        query!(GIVE_UP, name, owner, token).run(&self.pool).await?;
        Ok(())
    }
}
