//! The shop's own servers: which endpoint a request goes to, and over which connection.
//!
//! On the path: `forward.rs` asks an [`Upstream`] for candidates ([`policy`], [`ring`]), each [`Endpoint`] for a permit of its
//! breaker, and the endpoint's [`Pool`] for a connection.
//!
//! What all cores share ([`Shared`]: policy, breakers, health) is read-only or has its own short lock; pools and
//! cursors belong to one core and need none.

pub mod ring;

pub mod policy;

pub mod endpoint;

pub mod health;

mod pool;

pub mod dial;

mod connection;

mod body;

pub mod holder;

use std::{net::IpAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, Uri, header::COOKIE};
use tokio::{
    sync::{Notify, mpsc::UnboundedSender},
    time::Instant,
};

pub use self::{
    body::{Received, UpstreamBody, receive},
    connection::{Connection, SendError},
    endpoint::{BreakerChange, Endpoint},
    policy::Policy,
    pool::{Lease, Place, Pool, PoolError},
};
use self::{
    holder::MinRate,
    policy::{Candidates, Cursor},
    ring::hash64,
};
use crate::{
    config::{self, values::HashOn},
    metrics::Meters,
};

/// What all cores know of an upstream.
#[derive(Debug)]
pub struct Shared {
    /// Its configuration.
    pub config: config::Upstream,
    /// In the order of the configuration.
    pub endpoints: Vec<Endpoint>,
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
    /// Its place in the configuration, which is its place in the meters.
    pub index: usize,
    cursor: Cursor,
}

impl Shared {
    /// Builds the policy and one breaker per endpoint, whose changes are told to `told`.
    pub fn new(
        config: config::Upstream,
        now: Instant,
        told: &UnboundedSender<BreakerChange>,
    ) -> Self {
        let changed = Arc::default();
        Self {
            endpoints: config
                .endpoints
                .iter()
                .map(|endpoint| Endpoint::new(&config, &endpoint.address, now, &changed, told))
                .collect(),
            policy: Policy::new(&config),
            breaker_changed: changed,
            config,
        }
    }
}

impl Upstream {
    /// One core's pools over the shared endpoints.
    pub fn new(shared: Arc<Shared>, index: usize, min_rate: MinRate, meters: &Rc<Meters>) -> Self {
        let pool = |endpoint: &Endpoint| {
            Rc::new(Pool::new(
                endpoint.address(),
                &shared.config,
                min_rate,
                Rc::clone(meters),
                index,
            ))
        };
        Self {
            pools: shared.endpoints.iter().map(pool).collect(),
            cursor: Cursor::default(),
            index,
            shared,
        }
    }

    /// The endpoints this request should try, in order.
    pub fn candidates(
        &self,
        client: &ClientBits,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Candidates<'_> {
        let hash = match &self.shared.config.policy {
            config::Policy::RoundRobin => 0,
            config::Policy::RingHash(on) => hash_of(on, client, headers, uri),
        };
        self.shared.policy.candidates(hash, &self.cursor)
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, now: Instant) {
        for pool in &self.pools {
            pool.sweep(now);
        }
    }
}

/// The client's address as bytes for hashing.
pub type ClientBits = [u8; 16];

/// The client's address as bytes for shares: an IPv6 client owns a whole /64 and could walk through its addresses.
pub fn client_share(ip: IpAddr) -> ClientBits {
    let mut bits = client_bits(ip);
    if matches!(ip.to_canonical(), IpAddr::V6(_)) {
        bits[8..].fill(0);
    }
    bits
}

/// The client's address as bytes for hashing.
pub fn client_bits(ip: IpAddr) -> ClientBits {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The place of a request on the ring. A request without the header, cookie or parameter goes by its client's address: all
/// such requests together must not land on one endpoint.
fn hash_of(on: &HashOn, client: &ClientBits, headers: &HeaderMap, uri: &Uri) -> u64 {
    let found = match on {
        HashOn::Ip => None,
        HashOn::Header(name) => headers.get(name).map(|value| value.as_bytes()),
        HashOn::Cookie(name) => cookie(headers, name),
        HashOn::Path => Some(uri.path().as_bytes()),
        HashOn::Query(name) => uri.query().and_then(|query| parameter(query, name)),
    };
    hash64(found.unwrap_or(client))
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn parameter<'u>(query: &'u str, name: &str) -> Option<&'u [u8]> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_is_hashed_by_what_the_configuration_says() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; sid=xyz"));
        headers.append("x-user-id", HeaderValue::from_static("ann"));
        let uri: Uri = "/p?a=1&sku=blue".parse().unwrap();
        let client = [7; 16];
        let old = headers.clone();
        let hash = |on: &str| hash_of(&on.parse().unwrap(), &client, &old, &uri);
        assert_eq!(hash("cookie:sid"), hash64(b"xyz"));
        assert_eq!(hash("header:x-user-id"), hash64(b"ann"));
        assert_eq!(hash("query:sku"), hash64(b"blue"));
        assert_eq!(hash("path"), hash64(b"/p"));
        assert_eq!(hash("ip"), hash64(&client));
        assert_eq!(hash("cookie:none"), hash("ip"));
        // A byte that is no text in another cookie's value; what broke was stickiness.
        headers.insert(
            COOKIE,
            HeaderValue::from_bytes(b"n=caf\xE9; sid=beta").unwrap(),
        );
        assert_eq!(
            hash_of(&"cookie:sid".parse().unwrap(), &client, &headers, &uri),
            hash64(b"beta")
        );
    }
}
