//! The shop's own servers: which endpoint a request goes to, and over which connection.
//!
//! On the path: `proxy/walk.rs` asks an [`Upstream`] for candidates (`policy`, `ring`, by the `hash_key`), each [`Endpoint`] for a
//! permit of its breaker, and the endpoint's [`Pool`] for a connection.
//!
//! What all cores share ([`Shared`]: policy, breakers, health) is read-only or has its own short lock; pools and
//! cursors belong to one core and need none. Both are replaced whole when the configuration changes; endpoints that stay, by their
//! address, keep breaker, health and connections.

pub(crate) mod hash_key;
pub(crate) mod policy;
pub mod ring;

pub(crate) mod connect;
pub(crate) mod endpoint;
pub(crate) mod health;

mod body;
mod connection;
pub(crate) mod holder;
mod pool;
mod spool;

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, Uri};
use tokio::{
    sync::{Notify, mpsc::UnboundedSender},
    time::Instant,
};

pub use self::{
    body::{Received, UpstreamBody, receive},
    connection::{Connection, SendError},
    endpoint::{BreakerChange, Endpoint},
    policy::Policy,
    pool::{Lease, Pool, PoolError, Slot},
    spool::{SpoolBudget, Spooled},
};
use self::{
    hash_key::hash_of,
    policy::{Candidates, Cursor},
};
use crate::{config, http::client_ip::ClientBits, meters::UpstreamMeters, snapshot::Snapshot};

/// What all cores know of an upstream.
#[derive(Debug)]
pub struct Shared {
    pub config: config::Upstream,
    /// In the order of the configuration.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Some breaker has changed its state.
    pub breaker_changed: Arc<Notify>,
    policy: Policy,
}

/// An upstream as one core uses it.
#[derive(Debug)]
pub struct Upstream {
    /// What it shares with the other cores.
    pub shared: Arc<Shared>,
    /// One per endpoint, in the same order.
    pub pools: Vec<Rc<Pool>>,
    /// What is counted of it.
    pub meters: Rc<UpstreamMeters>,
    cursor: Cursor,
}

impl Shared {
    /// Builds the policy, and a breaker for each endpoint that `before` does not have; the changes of breakers are sent to `changes`.
    pub fn new(
        config: config::Upstream,
        before: Option<&Self>,
        now: Instant,
        changes: &UnboundedSender<BreakerChange>,
    ) -> Self {
        let changed =
            before.map_or_else(Arc::default, |before| Arc::clone(&before.breaker_changed));
        let kept = before.filter(|before| before.config.breaker == config.breaker);
        let endpoint = |endpoint: &config::Endpoint| {
            let address = &endpoint.address;
            let kept = kept.and_then(|before| before.endpoint(address));
            kept.unwrap_or_else(|| {
                Arc::new(Endpoint::new(&config, address, now, &changed, changes))
            })
        };
        Self {
            endpoints: config.endpoints.iter().map(endpoint).collect(),
            policy: Policy::new(&config),
            breaker_changed: changed,
            config,
        }
    }

    /// The endpoint of this address.
    pub fn endpoint(&self, address: &str) -> Option<Arc<Endpoint>> {
        let mut endpoints = self.endpoints.iter();
        endpoints
            .find(|endpoint| endpoint.address() == address)
            .map(Arc::clone)
    }
}

impl Upstream {
    /// One core's pools over the shared endpoints; those of `before` are kept where nothing has changed for them.
    pub fn new(
        shared: Arc<Shared>,
        before: Option<&Self>,
        server: &Rc<Snapshot<config::Server>>,
        meters: Rc<UpstreamMeters>,
    ) -> Self {
        let pool = |endpoint: &Arc<Endpoint>| {
            let address = endpoint.address();
            let kept = before.and_then(|before| {
                let mut pools = before.pools.iter();
                pools.find(|pool| pool.is_for(address, &shared.config))
            });
            kept.map_or_else(
                || {
                    let (server, meters) = (Rc::clone(server), Rc::clone(&meters));
                    Rc::new(Pool::new(address, &shared.config, server, meters))
                },
                Rc::clone,
            )
        };
        Self {
            pools: shared.endpoints.iter().map(pool).collect(),
            cursor: Cursor::default(),
            meters,
            shared,
        }
    }

    /// What decides on a ring where a request goes. By what the client sent, before it is rewritten.
    pub fn hash(&self, client: &ClientBits, headers: &HeaderMap, uri: &Uri) -> u64 {
        match &self.shared.config.policy {
            config::Policy::RoundRobin => 0,
            config::Policy::RingHash(on) => hash_of(on, client, headers, uri),
        }
    }

    /// The endpoints that a request of this hash should try, in order.
    pub fn candidates(&self, hash: u64) -> Candidates<'_> {
        self.shared.policy.candidates(hash, &self.cursor)
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, now: Instant) {
        for pool in &self.pools {
            pool.sweep(now);
        }
    }
}
