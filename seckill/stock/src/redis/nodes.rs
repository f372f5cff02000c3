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
use futures_util::future::join_all;
use limiter::backoff::Backoff;
use tokio::time::Instant;

use super::{
    RedisOptions,
    connect::{self, ask, unavailable},
    durability::Wait,
    failure::Unusable,
    node::{Fit, Node},
};
use crate::{Durability, StockError};

const SLOTS: u16 = 16_384;

/// Least time between two looks for the servers while one is missing. A failover takes seconds; asking more often would only burden the
/// survivors, and a server that is back is found within the longest.
const LOOK_PAUSE: Backoff = Backoff {
    first: Duration::from_millis(200),
    max: Duration::from_secs(1),
};

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
    /// Held while somebody looks for the servers. Held across awaits, so tokio's.
    looks: tokio::sync::Mutex<Looks>,
    /// The last problem with the servers, so that it is logged once and not at every look.
    last_problem: Mutex<Option<String>>,
}

/// How the looks for the servers went.
#[derive(Default)]
struct Looks {
    /// When the last one ended.
    ended_at: Option<Instant>,
    /// Since one that found all.
    failures: u32,
    /// How long the next one waits at least.
    pause: Duration,
}

impl Nodes {
    /// Connects to every primary that can be reached; the others are looked for whenever one of their segments is asked for. Fails if
    /// one that answers does not pass the checks.
    pub(super) async fn connect(config: Config, options: RedisOptions) -> Result<Self, StockError> {
        let nodes = Self {
            config,
            options,
            map: ArcSwap::default(),
            looks: tokio::sync::Mutex::default(),
            last_problem: Mutex::default(),
        };
        let first = nodes.look(&mut *nodes.looks.lock().await).await;
        match first {
            Some(Unusable::Unfit(why)) => Err(why),
            Some(Unusable::Away(_)) | None => Ok(nodes),
        }
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
        let fit = node.check(&self.options, level).await;
        fit.map_err(Unusable::into_why)
    }

    /// The same server over the connection for calls that are followed by a wait; see [`Node::for_wait`].
    pub(super) async fn for_wait(&self, node: &Node, wait: Wait) -> Result<Arc<Node>, StockError> {
        node.for_wait(wait, &self.config, &self.options).await
    }

    /// Whether all servers were there at the last look; looks again if one is not.
    pub(super) async fn reach(&self) -> Result<(), StockError> {
        let is_whole = || {
            self.last_problem
                .lock()
                .expect("no holder panics")
                .is_none()
        };
        let nodes = self.map.load();
        if !is_whole() || !nodes.iter().all(|range| range.node.client.is_connected()) {
            self.refresh_unless_recent().await;
        }
        let problem = self.last_problem.lock().expect("no holder panics").clone();
        problem.map_or(Ok(()), |problem| Err(unavailable(problem)))
    }

    /// Looks again who has which slots, after a node said that it has them no longer.
    pub(super) async fn refresh(&self) {
        if self.config.server.is_clustered() {
            let asked_at = Instant::now();
            let mut looks = self.looks.lock().await;
            // Somebody else may have looked while this one waited.
            if looks.ended_at.is_none_or(|ended_at| ended_at < asked_at) {
                self.look(&mut looks).await;
            }
        }
    }

    /// The same after a node could not be reached. Never waits for another who looks, and looks not too often: the caller is
    /// refused either way until somebody has taken the slots over.
    pub(super) async fn refresh_unless_recent(&self) {
        if let Ok(mut looks) = self.looks.try_lock()
            && looks.is_due()
        {
            self.look(&mut looks).await;
        }
    }

    /// Finds who has which slots, connects to those that are new, and says what is wrong, if anything is.
    async fn look(&self, looks: &mut Looks) -> Option<Unusable> {
        let old = self.map.load_full();
        let problem = match self.slots(&old).await {
            Err(problem) => Some(problem),
            Ok(slots) => {
                let (ranges, problem) = self.nodes_of(slots, &old).await;
                self.map.store(Arc::new(ranges));
                problem
            }
        };
        self.report(problem.as_ref());
        looks.end(problem.is_some());
        problem
    }

    /// Who should have which slots: of a cluster, as the first that knows of all slots says, or who knows most.
    async fn slots(&self, old: &[Range]) -> Result<Slots, Unusable> {
        let ServerConfig::Clustered { hosts, .. } = &self.config.server else {
            let server = self.config.server.hosts().into_iter().next();
            let server = server.expect("a single server has an address");
            return Ok(vec![(0, SLOTS - 1, server)]);
        };
        let mut best: Result<Slots, Unusable> = Err(Unusable::Away(unavailable(
            "no address of the cluster is given".to_owned(),
        )));
        let known = old.iter().map(|range| &range.node);
        for node in known.filter(|node| node.client.is_connected()) {
            let found = ask_for_slots(node, self.options.timeout).await;
            if found.as_ref().is_ok_and(covers_all) {
                return found;
            }
            best = better(best, found);
        }
        for seed in hosts {
            let found = match connect::open(&self.config, &self.options, seed.clone()).await {
                Ok(node) => ask_for_slots(&node, self.options.timeout).await,
                Err(problem) => Err(problem),
            };
            if found.as_ref().is_ok_and(covers_all) {
                return found;
            }
            best = better(best, found);
        }
        best
    }

    /// Connections to those that should have slots. The slots of one that cannot be used stay without: their segments are unavailable,
    /// and the next look tries again.
    async fn nodes_of(&self, slots: Slots, old: &[Range]) -> (Vec<Range>, Option<Unusable>) {
        let mut servers: Vec<Server> = Vec::new();
        for (_, _, server) in &slots {
            if !servers.contains(server) {
                servers.push(server.clone());
            }
        }
        let nodes = servers.into_iter().map(async |server| {
            match old.iter().find(|range| range.node.server == server) {
                // Its client connects again by itself.
                Some(range) => Ok(Arc::clone(&range.node)),
                None => connect::prepare(&self.config, &self.options, server)
                    .await
                    .map(Arc::new),
            }
        });
        let uncovered = usize::from(SLOTS).saturating_sub(count(&slots));
        let mut problem = (uncovered > 0).then(|| {
            let why = format!("{uncovered} of the cluster's {SLOTS} slots have no primary");
            Unusable::Away(unavailable(why))
        });
        let mut usable = Vec::new();
        for node in join_all(nodes).await {
            match node {
                Ok(node) => {
                    if !node.client.is_connected() {
                        let why = format!("no connection to redis at {}", node.server);
                        problem = Some(Unusable::Away(unavailable(why)).or(problem));
                    }
                    usable.push(node);
                }
                Err(error) => problem = Some(error.or(problem)),
            }
        }
        let ranges = slots.into_iter().filter_map(|(first, last, server)| {
            let node = usable.iter().find(|node| node.server == server)?;
            let node = Arc::clone(node);
            Some(Range { first, last, node })
        });
        (ranges.collect(), problem)
    }

    fn report(&self, problem: Option<&Unusable>) {
        let problem = problem.map(|problem| problem.why().to_string());
        let mut last = self.last_problem.lock().expect("no holder panics");
        match &problem {
            Some(problem) if last.as_ref() != Some(problem) => {
                tracing::warn!(%problem, "redis is not all there, trying again");
            }
            None if last.is_some() => tracing::info!("redis is all there again"),
            Some(_) | None => {}
        }
        *last = problem;
    }
}

impl Looks {
    fn is_due(&self) -> bool {
        self.ended_at
            .is_none_or(|ended_at| ended_at.elapsed() >= self.pause)
    }

    fn end(&mut self, has_failed: bool) {
        self.failures = if has_failed { self.failures + 1 } else { 0 };
        self.pause = LOOK_PAUSE.wait(self.failures, rand::random());
        self.ended_at = Some(Instant::now());
    }
}

type Slots = Vec<(u16, u16, Server)>;

fn count(slots: &Slots) -> usize {
    let ranges = slots.iter();
    ranges
        .map(|(first, last, _)| usize::from(last - first) + 1)
        .sum()
}

fn covers_all(slots: &Slots) -> bool {
    count(slots) == usize::from(SLOTS)
}

/// Of two answers, the one that knows of more slots; of two failures, the one that is to be told.
fn better(one: Result<Slots, Unusable>, other: Result<Slots, Unusable>) -> Result<Slots, Unusable> {
    match (one, other) {
        (Ok(one), Ok(other)) if count(&one) >= count(&other) => Ok(one),
        (_, Ok(other)) => Ok(other),
        (Ok(one), Err(_)) => Ok(one),
        (Err(one), Err(other)) => Err(other.or(Some(one))),
    }
}

async fn ask_for_slots(node: &Node, timeout: Duration) -> Result<Slots, Unusable> {
    let at = &node.server;
    let failed = |error: Error| {
        let why = format!("cannot read the cluster's slots from redis at {at}: {error}");
        Unusable::new(&error, why)
    };
    let answer = ask(&node.client, timeout, "CLUSTER", vec!["SLOTS"]).await;
    let answer = answer.map_err(failed)?;
    read_slots(&answer, &at.host).ok_or_else(|| {
        let why = format!("unreadable CLUSTER SLOTS: {answer:?}");
        failed(Error::new(fred::error::ErrorKind::Protocol, why))
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
