//! One Redis server: its client, and whether its settings were found good over the connection of now.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    types::{ConnectHandle, config::Server},
};
use tokio::{
    sync::broadcast::{Receiver, error::TryRecvError},
    time::Instant,
};

use super::{RedisOptions, connect};
use crate::store::StockError;

/// Least time between two looks at the settings of a server that has failed the check: every call of its segments asks.
const RECHECK_PAUSE: Duration = Duration::from_millis(200);

/// One server. Dropping it closes the connection.
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) client: Client,
    connection: ConnectHandle,
    /// Each message is one more connection: fred sends it before the first command goes over that connection.
    reconnects: Mutex<Receiver<Server>>,
    connections: AtomicU64,
    /// The number of the connection over which the settings were found good.
    passed: AtomicU64,
    /// Held across the awaits of a check, so tokio's: callers that come meanwhile wait for its result. The last failure.
    checking: tokio::sync::Mutex<Option<Unfit>>,
}

/// A server whose settings were not found good.
struct Unfit {
    connection: u64,
    seen_at: Instant,
    why: StockError,
}

/// No connection was checked yet.
const NEVER: u64 = u64::MAX;

impl Node {
    pub(super) fn new(
        server: Server,
        client: Client,
        connection: ConnectHandle,
        reconnects: Receiver<Server>,
    ) -> Self {
        Self {
            server,
            client,
            connection,
            reconnects: Mutex::new(reconnects),
            connections: AtomicU64::new(0),
            passed: AtomicU64::new(NEVER),
            checking: tokio::sync::Mutex::default(),
        }
    }

    /// How many connections there have been.
    pub(super) fn connections(&self) -> u64 {
        let mut reconnects = self.reconnects.lock().expect("no holder panics");
        let mut new = 0;
        loop {
            match reconnects.try_recv() {
                Ok(_) => new += 1,
                Err(TryRecvError::Lagged(missed)) => new += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.connections.fetch_add(new, Ordering::AcqRel) + new
    }

    /// Checks the server's version and settings, once for each connection: a server that was restarted may have come back with
    /// others. Answers the number of the connection that passed.
    pub(super) async fn check(&self, options: &RedisOptions) -> Result<u64, StockError> {
        let connection = self.connections();
        if self.passed.load(Ordering::Acquire) == connection {
            return Ok(connection);
        }
        let mut unfit = self.checking.lock().await;
        let connection = self.connections();
        if self.passed.load(Ordering::Acquire) == connection {
            return Ok(connection);
        }
        if let Some(last) = unfit.as_ref()
            && last.connection == connection
            && last.seen_at.elapsed() < RECHECK_PAUSE
        {
            return Err(last.why.clone());
        }
        match connect::check(&self.client, &self.server, options).await {
            Ok(()) => {
                *unfit = None;
                self.passed.store(connection, Ordering::Release);
                Ok(connection)
            }
            Err(why) => {
                if unfit.is_none() {
                    tracing::error!(server = %self.server, %why, "redis cannot be used");
                }
                *unfit = Some(Unfit {
                    connection,
                    seen_at: Instant::now(),
                    why: why.clone(),
                });
                Err(why)
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The task holds the client alive and would reconnect for ever.
        self.connection.abort();
    }
}
