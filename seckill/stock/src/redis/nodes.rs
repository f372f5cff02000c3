//! The servers behind the store: the one of `redis://`, or every primary of `redis-cluster://` and which slots it has.
//!
//! One client a primary, not one client a cluster: fred's cluster client stops answering for all primaries while it reconnects
//! to one, and a dead primary must take no more than its own segments with it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{
        Value,
        config::{Config, Server, ServerConfig},
    },
};
use tokio::time::Instant;

use super::{
    RedisOptions,
    connect::{self, ask, unavailable},
    durability::Wait,
    node::{Fit, Node},
};
use crate::{Durability, StockError};

const SLOTS: u16 = 16_384;

/// Least time between two looks at the cluster's map. A failover takes seconds; asking more often would only burden the survivors.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// Slots `first..=last` and the primary that has them.
struct Range {
    first: u16,
    last: u16,
    node: Arc<Node>,
}

/// Which primary has which slots.
pub(super) struct Nodes {
    config: Config,
    options: RedisOptions,
    map: ArcSwap<Vec<Range>>,
    /// Held while somebody looks at the cluster's map, with the time when the last look ended. Held across awaits, so tokio's.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    /// The last problem with a node, so that it is logged once and not at every look.
    last_problem: Mutex<String>,
}

impl Nodes {
    /// Connects to every primary; each must be reachable and pass the checks.
    pub(super) async fn connect(config: Config, options: RedisOptions) -> Result<Self, StockError> {
        let map = match &config.server {
            ServerConfig::Clustered { hosts, .. } => {
                let (mut last, mut map) = (unavailable("no address is given".to_owned()), None);
                for seed in hosts {
                    match look_from_seed(&config, &options, seed).await {
                        Ok(found) => {
                            map = Some(found);
                            break;
                        }
                        Err(error) => last = error,
                    }
                }
                let mut ranges: Vec<Range> = Vec::new();
                for (first, last, server) in map.ok_or(last)? {
                    let node = match find(&ranges, &server) {
                        Some(node) => node,
                        None => Arc::new(connect::prepare(&config, &options, server).await?),
                    };
                    ranges.push(Range { first, last, node });
                }
                ranges
            }
            config_of_one => {
                let server = config_of_one
                    .hosts()
                    .into_iter()
                    .next()
                    .expect("a single server has an address");
                let node = Arc::new(connect::prepare(&config, &options, server).await?);
                vec![Range {
                    first: 0,
                    last: SLOTS - 1,
                    node,
                }]
            }
        };
        Ok(Self {
            config,
            options,
            map: ArcSwap::from_pointee(map),
            refreshing: tokio::sync::Mutex::new(None),
            last_problem: Mutex::default(),
        })
    }

    /// Who has a slot now; `None` while no reachable primary does.
    pub(super) fn of(&self, slot: u16) -> Option<Arc<Node>> {
        let map = self.map.load();
        map.iter()
            .find(|range| (range.first..=range.last).contains(&slot))
            .map(|range| Arc::clone(&range.node))
    }

    /// Whether a node's settings are still good; see [`Node::check`].
    pub(super) async fn check(&self, node: &Node, level: Durability) -> Result<Fit, StockError> {
        node.check(&self.options, level).await
    }

    /// The same server over the connection for calls that are followed by a wait; see [`Node::for_wait`].
    pub(super) async fn for_wait(&self, node: &Node, wait: Wait) -> Result<Arc<Node>, StockError> {
        node.for_wait(wait, &self.config, &self.options).await
    }

    /// Looks again who has which slots, after a node said that it has them no longer.
    pub(super) async fn refresh(&self) {
        if self.config.server.is_clustered() {
            let asked_at = Instant::now();
            let mut ended_at = self.refreshing.lock().await;
            // Somebody else may have looked while this one waited.
            if ended_at.is_none_or(|ended_at| ended_at < asked_at) {
                self.look().await;
                *ended_at = Some(Instant::now());
            }
        }
    }

    /// The same after a node could not be reached. Never waits for another who looks, and looks not too often: the caller is
    /// refused either way until somebody has taken the slots over.
    pub(super) async fn refresh_unless_recent(&self) {
        if self.config.server.is_clustered()
            && let Ok(mut ended_at) = self.refreshing.try_lock()
            && ended_at.is_none_or(|ended_at| ended_at.elapsed() >= REFRESH_PAUSE)
        {
            self.look().await;
            *ended_at = Some(Instant::now());
        }
    }

    async fn look(&self) {
        let old = self.map.load_full();
        let mut found = Err(Error::new(
            fred::error::ErrorKind::Cluster,
            "no primary answers",
        ));
        for node in old
            .iter()
            .map(|range| &range.node)
            .filter(|node| node.client.is_connected())
        {
            found = ask_for_slots(node, self.options.timeout).await;
            if found.is_ok() {
                break;
            }
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.report(format!("cannot read the cluster's slots: {error}")),
        };
        let mut ranges: Vec<Range> = Vec::new();
        for (first, last, server) in found {
            let node = match find(&ranges, &server).or_else(|| find(&old, &server)) {
                Some(node) => node,
                None => match connect::prepare(&self.config, &self.options, server).await {
                    Ok(node) => Arc::new(node),
                    // Its slots stay without a node: their segments are unavailable, and the next look tries again.
                    Err(error) => {
                        self.report(error.to_string());
                        continue;
                    }
                },
            };
            ranges.push(Range { first, last, node });
        }
        self.map.store(Arc::new(ranges));
    }

    fn report(&self, problem: String) {
        let mut last = self.last_problem.lock().expect("no holder panics");
        if *last != problem {
            tracing::warn!(%problem, "redis cluster");
            *last = problem;
        }
    }
}

fn find(ranges: &[Range], server: &Server) -> Option<Arc<Node>> {
    ranges
        .iter()
        .find(|range| range.node.server == *server)
        .map(|range| Arc::clone(&range.node))
}

type Slots = Vec<(u16, u16, Server)>;

async fn look_from_seed(
    config: &Config,
    options: &RedisOptions,
    seed: &Server,
) -> Result<Slots, StockError> {
    let node = connect::open(config, options, seed.clone()).await?;
    let at = &node.server;
    let slots = ask_for_slots(&node, options.timeout)
        .await
        .map_err(|error| {
            unavailable(format!(
                "cannot read the cluster's slots from {at}: {error}"
            ))
        })?;
    let covered: usize = slots
        .iter()
        .map(|(first, last, _)| usize::from(last - first) + 1)
        .sum();
    if covered < usize::from(SLOTS) {
        return Err(unavailable(format!(
            "the cluster that {at} belongs to serves only {covered} of {SLOTS} slots"
        )));
    }
    Ok(slots)
}

async fn ask_for_slots(node: &Node, timeout: Duration) -> Result<Slots, Error> {
    let answer = ask(&node.client, timeout, "CLUSTER", vec!["SLOTS"]).await?;
    read_slots(&answer, &node.server.host).ok_or_else(|| {
        Error::new(
            fred::error::ErrorKind::Protocol,
            format!("unreadable CLUSTER SLOTS: {answer:?}"),
        )
    })
}

/// `[[first, last, [host, port, …], replicas…], …]`; a node that does not know its own address is where it was asked.
fn read_slots(answer: &Value, asked_host: &str) -> Option<Slots> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(range) = range else {
                return None;
            };
            let [first, last, Value::Array(primary), ..] = range.as_slice() else {
                return None;
            };
            let host = primary
                .first()?
                .as_string()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| asked_host.to_owned());
            let first: u16 = first.as_u64()?.try_into().ok()?;
            let last: u16 = last.as_u64()?.try_into().ok()?;
            let port: u16 = primary.get(1)?.as_u64()?.try_into().ok()?;
            (first <= last && last < SLOTS).then(|| (first, last, Server::new(host, port)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Integer(port), Value::from("id")])
    }

    #[test]
    fn a_cluster_map_is_read_and_a_broken_one_is_not() {
        let range = |first: i64, last: i64, primary: Value| {
            Value::Array(vec![first.into(), last.into(), primary])
        };
        let good = Value::Array(vec![
            range(0, 9, primary("h".into(), 1)),
            range(10, 16_383, primary(Value::Null, 2)),
        ]);
        let slots = read_slots(&good, "asked").unwrap();
        assert_eq!(
            slots,
            [
                (0, 9, Server::new("h", 1)),
                (10, 16_383, Server::new("asked", 2))
            ]
        );
        for bad in [
            Value::Null,
            Value::Array(vec![Value::Null]),
            Value::Array(vec![range(9, 0, primary("h".into(), 1))]),
            Value::Array(vec![range(0, 16_384, primary("h".into(), 1))]),
            Value::Array(vec![range(0, 1, primary("h".into(), 70_000))]),
        ] {
            assert!(read_slots(&bad, "asked").is_none(), "{bad:?}");
        }
    }
}
