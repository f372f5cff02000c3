//! Redlock as the lease: a key with an end, held on more than half of several independent Redis servers
//! (<https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/>). What Redlock cannot promise (its clocks are not monotonic, a
//! holder may sleep) the token makes harmless.

use std::time::Duration;

use async_trait::async_trait;
use stock::{
    StockError,
    redis::{RedisOptions, quorum::Quorum},
};
use tokio::time::Instant;

use super::Lease;
use crate::ledger::{LedgerError, OrderLedger, REBUILD};

const KEY: &str = "penstock:lease:recovery";
/// Ten looks of the rebuilder: one that came late does not cost the lease.
const LASTS: Duration = Duration::from_secs(10);
/// A server that takes longer does not vote; far below the lease, so that a vote is never counted after its end.
const PATIENCE: Duration = Duration::from_millis(500);
/// What clocks of different servers may differ by while the lease lasts, beside 1 %: the granularity of key expiry.
const DRIFT: Duration = Duration::from_millis(2);

/// See the file's documentation.
pub struct Redlock {
    ledger: OrderLedger,
    servers: Quorum,
    owner: String,
    token: Option<u64>,
}

impl Redlock {
    /// A lock not yet held, over these servers (`redis://…`, credentials in the options). `owner` tells this process from all others, this life of it from
    /// the one before: put something random into it.
    pub fn try_new(
        ledger: OrderLedger,
        servers: &[String],
        options: RedisOptions,
        owner: String,
    ) -> Result<Self, StockError> {
        Ok(Self {
            ledger,
            servers: Quorum::try_new(
                servers,
                RedisOptions {
                    timeout: PATIENCE,
                    ..options
                },
            )?,
            owner,
            token: None,
        })
    }
}

/// Whether so many votes, gathered in that time, are the lease.
fn is_held(votes: usize, servers: usize, took: Duration) -> bool {
    let drift = LASTS / 100 + DRIFT;
    votes > servers / 2 && took + drift < LASTS
}

#[async_trait]
impl Lease for Redlock {
    async fn hold(&mut self) -> Result<Option<u64>, LedgerError> {
        let started = Instant::now();
        let votes = match self.token {
            Some(_) => self.servers.keep(KEY, &self.owner, LASTS).await,
            None => self.servers.take(KEY, &self.owner, LASTS).await,
        };
        if !is_held(votes, self.servers.size(), started.elapsed()) {
            self.token = None;
            // A minority of votes would only stand in the way of others until its end.
            self.servers.give_up(KEY, &self.owner).await;
            return Ok(None);
        }
        if self.token.is_none() {
            self.token = Some(self.ledger.next_token(REBUILD, &self.owner).await?);
        }
        Ok(self.token)
    }

    async fn give_up(&mut self) -> Result<(), LedgerError> {
        self.token = None;
        self.servers.give_up(KEY, &self.owner).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_in_time_holds_and_nothing_less() {
        let soon = Duration::from_millis(5);
        assert!(is_held(2, 3, soon));
        assert!(!is_held(1, 3, soon));
        assert!(!is_held(2, 4, soon));
        assert!(!is_held(0, 0, soon));
        assert!(is_held(3, 3, Duration::from_millis(9_890)));
        assert!(!is_held(3, 3, Duration::from_millis(9_900)));
    }
}
