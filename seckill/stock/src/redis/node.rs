//! One Redis server: its client, and what it was found to be over the connection of now.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    types::{
        ConnectHandle,
        config::{Config, Server},
    },
};
use tokio::{
    sync::{
        OnceCell,
        broadcast::{Receiver, error::TryRecvError},
    },
    time::Instant,
};

use super::{
    RedisOptions, connect,
    durability::{self, OnDisk, Wait},
    failure::Unusable,
};
use crate::{Durability, StockError};

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
    /// What the last check found, if it was good.
    fit: Mutex<Option<Fit>>,
    /// Held across the awaits of a check, so tokio's: callers that come meanwhile wait for its result. The last failure.
    checking: tokio::sync::Mutex<Option<Unfit>>,
    /// The same server over connections of their own, for calls that are held back until a replica or the disk has them: `WAIT` and
    /// `WAITAOF` hold up all that comes after them on theirs. Opened when they are first used.
    behind_replicas: OnceCell<Arc<Node>>,
    behind_disk: OnceCell<Arc<Node>>,
}

/// A server whose settings were found good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// The number of the connection over which they were read.
    pub(super) connection: u64,
    /// Whether and how it can be durable.
    pub(super) on_disk: OnDisk,
}

/// A server whose settings were not found good.
struct Unfit {
    connection: u64,
    seen_at: Instant,
    why: Unusable,
}

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
            fit: Mutex::default(),
            checking: tokio::sync::Mutex::default(),
            behind_replicas: OnceCell::new(),
            behind_disk: OnceCell::new(),
        }
    }

    /// The connection for calls that are followed by this wait. One with its own kind only: a lost replica must not hold up what
    /// waits for the disk.
    pub(super) async fn for_wait(
        &self,
        wait: Wait,
        config: &Config,
        options: &RedisOptions,
    ) -> Result<Arc<Node>, StockError> {
        let cell = match wait {
            Wait::Replicas => &self.behind_replicas,
            Wait::Disk => &self.behind_disk,
        };
        let open = async || {
            // Boxed: the future of a connection would hold one of the same kind.
            let opened = Box::pin(connect::open(config, options, self.server.clone()));
            opened.await.map(Arc::new).map_err(Unusable::into_why)
        };
        cell.get_or_try_init(open).await.map(Arc::clone)
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

    /// Checks the server's version, settings and library, once for each connection: a server that was restarted may have come back
    /// with others. Looks again if it could not give the level when it was last seen. Answers what was found.
    pub(super) async fn check(
        &self,
        options: &RedisOptions,
        level: Durability,
    ) -> Result<Fit, Unusable> {
        if let Some(fit) = self.fit_for(level) {
            return Ok(fit);
        }
        let mut unfit = self.checking.lock().await;
        if let Some(fit) = self.fit_for(level) {
            return Ok(fit);
        }
        let connection = self.connections();
        if let Some(last) = unfit.as_ref()
            && last.connection == connection
            && last.seen_at.elapsed() < RECHECK_PAUSE
        {
            return Err(last.why.clone());
        }
        let found = connect::check(&self.client, &self.server, options).await;
        let fit = found.as_ref().ok().map(|on_disk| Fit {
            connection,
            on_disk: *on_disk,
        });
        // Without the level asked for now it may still be good for other sales.
        let before = std::mem::replace(&mut *self.fit.lock().expect("no holder panics"), fit);
        let why = match (found, fit) {
            (Err(why), _) => why,
            (Ok(_), Some(fit)) if fit.on_disk.gives(level) => {
                *unfit = None;
                return Ok(fit);
            }
            (Ok(_), _) => Unusable::Unfit(durability::refusal(&self.server, level)),
        };
        // What is wrong from the beginning is reported where the connection is made.
        if unfit.is_none() && (before.is_some() || fit.is_some()) {
            let why = why.why();
            tracing::error!(server = %self.server, %why, "redis cannot be used");
        }
        *unfit = Some(Unfit {
            connection,
            seen_at: Instant::now(),
            why: why.clone(),
        });
        Err(why)
    }

    fn fit_for(&self, level: Durability) -> Option<Fit> {
        let connection = self.connections();
        let fit = *self.fit.lock().expect("no holder panics");
        fit.filter(|fit| fit.connection == connection && fit.on_disk.gives(level))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The task holds the client alive and would reconnect for ever.
        self.connection.abort();
    }
}
