//! A PostgreSQL advisory lock as the lease: held by a connection of its own, gone with it, so a dead node frees it at once and
//! no clock is involved.

use async_trait::async_trait;
use sqlx::{AnyConnection, Connection};

use super::{Lease, LeaseError};
use crate::ledger::{OrderLedger, RECOVERY};

/// The number is arbitrary and only has to be the same on all nodes of a ledger.
const TRY_LOCK: &str = "SELECT CASE WHEN pg_try_advisory_lock(7363468) THEN 1 ELSE 0 END";

const UNLOCK: &str = "SELECT CASE WHEN pg_advisory_unlock(7363468) THEN 1 ELSE 0 END";

/// See the file's documentation.
pub struct AdvisoryLock {
    ledger: OrderLedger,
    owner: String,
    /// The connection that holds the lock, and the token that was drawn under it.
    held: Option<(AnyConnection, u64)>,
    /// While another node has the lock: what asks for it. One connection, not a new one each second.
    asking: Option<AnyConnection>,
}

impl AdvisoryLock {
    /// A lock not yet held. `owner` names this process for whoever reads the table.
    pub fn new(ledger: OrderLedger, owner: String) -> Self {
        Self {
            ledger,
            owner,
            held: None,
            asking: None,
        }
    }
}

#[async_trait]
impl Lease for AdvisoryLock {
    async fn hold(&mut self) -> Result<Option<u64>, LeaseError> {
        if let Some((connection, token)) = &mut self.held {
            if connection.ping().await.is_ok() {
                return Ok(Some(*token));
            }
            // The server has ended the session, and the lock with it.
            self.held = None;
        }
        // Never given back to the pool: a lock must not wander to whoever gets the connection next.
        let mut connection = match self.asking.take() {
            Some(connection) => connection,
            None => {
                let acquired = self.ledger.pool().acquire().await;
                acquired.map_err(LeaseError::Lock)?.detach()
            }
        };
        let locked: i32 = sqlx::query_scalar(TRY_LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(LeaseError::Lock)?;
        if locked == 0 {
            self.asking = Some(connection);
            return Ok(None);
        }
        let token = self.ledger.next_token(RECOVERY, &self.owner).await?;
        self.held = Some((connection, token));
        Ok(Some(token))
    }

    async fn give_up(&mut self) -> Result<(), LeaseError> {
        if let Some(connection) = self.asking.take() {
            connection.close().await.map_err(LeaseError::Lock)?;
        }
        if let Some((mut connection, _)) = self.held.take() {
            // The end of a session frees its locks too, but only some time after this side has gone.
            sqlx::query(UNLOCK)
                .execute(&mut connection)
                .await
                .map_err(LeaseError::Lock)?;
            connection.close().await.map_err(LeaseError::Lock)?;
        }
        Ok(())
    }
}
