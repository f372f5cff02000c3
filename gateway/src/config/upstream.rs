//! `[[upstream]]`: the shop's own servers.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use http::HeaderName;
use limiter::breaker::BreakerConfig;
use settings::{Section, one_of};

use super::values::{ENDPOINT_FORM, endpoint_address, is_token, name};

/// Twice a lost SYN's first retry.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A shop page that takes longer has lost its reader.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// As nginx's `proxy_read_timeout`.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// One more endpoint hides one failing; more would multiply load when all are failing.
const RETRIES: usize = 1;

/// Per core and endpoint: a busy core keeps its connections through a short lull.
const POOL: Pool = Pool {
    max_idle: 128,
    max_active: 1024,
    max_per_client: 64,
    // Below the 5 s of node's default keep-alive: the side that closes first must be ours.
    idle_timeout: Duration::from_secs(4),
};

const HOUR: Duration = Duration::from_secs(3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The form of [`HashOn`] for messages.
pub(super) const HASH_ON_FORMS: &str = "ip, header:NAME, cookie:NAME, path or query:NAME";

/// `[[upstream]]`.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in routes and metrics.
    pub name: String,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// The servers; at least one, at most [`ENDPOINTS_MAX`].
    pub endpoints: Vec<Endpoint>,
    /// The most a TCP connect may take.
    pub connect_timeout: Duration,
    /// From the request's end to the response's header.
    pub response_timeout: Duration,
    /// The longest pause between two pieces of a response's body.
    pub body_timeout: Duration,
    /// Further endpoints tried when a request may be sent again.
    pub retries: usize,
    /// Bounds of the connection pool, per endpoint and core.
    pub pool: Pool,
    /// `None` = switched off.
    pub breaker: Option<BreakerConfig>,
    /// `None` = no active health check.
    pub health: Option<Health>,
}

/// An endpoint walk marks visited endpoints in one 128-bit word.
pub const ENDPOINTS_MAX: usize = 128;

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In turn, smoothly by weight.
    RoundRobin,
    /// The same key always meets the same endpoint, while it lives.
    RingHash(HashOn),
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`, whose name is looked up at every connect, or `unix:/path`.
    pub address: String,
    /// Its share relative to the others.
    pub weight: u32,
}

/// Bounds of the connection pool to one endpoint, per core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept; the oldest beyond it are closed.
    pub max_idle: usize,
    /// Connections in use, tunnels included; at the limit the endpoint is passed over.
    pub max_active: usize,
    /// Of these, what one client may have once half of them are in use.
    pub max_per_client: usize,
    /// An idle connection is closed after this. Keep it below the shop's own keep-alive time.
    pub idle_timeout: Duration,
}

/// `health = { … }` of an upstream: a GET that must answer 2xx or 3xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path asked for.
    pub path: String,
    /// Time between two checks of one endpoint.
    pub interval: Duration,
    /// The most a check may take.
    pub timeout: Duration,
    /// Good answers in a row that bring an endpoint back.
    pub healthy: u32,
    /// Bad answers in a row that take an endpoint out.
    pub unhealthy: u32,
}

/// What decides the place on the hash ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    Ip,
    /// A header's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The path without the query.
    Path,
    /// A parameter of the query.
    Query(String),
}

impl FromStr for HashOn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "ip" => Ok(Self::Ip),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| ()),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            Some(("query", name)) if is_token(name) => Ok(Self::Query(name.to_owned())),
            _ => Err(()),
        }
    }
}

/// All upstreams, also those with problems, so that routes' references are not reported as well.
pub(super) fn upstreams(root: &Section<'_>) -> Vec<Upstream> {
    root.sections("upstream")
        .into_iter()
        .map(upstream)
        .collect()
}

fn upstream(section: Section<'_>) -> Upstream {
    let mut upstream = Upstream {
        name: name(&section, None).unwrap_or_default(),
        policy: policy(&section),
        endpoints: endpoints(&section),
        connect_timeout: CONNECT_TIMEOUT,
        response_timeout: RESPONSE_TIMEOUT,
        body_timeout: BODY_TIMEOUT,
        retries: RETRIES,
        pool: POOL,
        breaker: Some(BreakerConfig::default()),
        health: None,
    };
    let times = [
        ("connect_timeout", &mut upstream.connect_timeout),
        ("response_timeout", &mut upstream.response_timeout),
        ("body_timeout", &mut upstream.body_timeout),
    ];
    for (key, field) in times {
        if let Some(time) = section.duration(key, MILLISECOND..=HOUR) {
            *field = time;
        }
    }
    if let Some(retries) = section.integer("retries", 0..=10) {
        upstream.retries = retries;
    }
    if let Some(pool) = section.section("pool") {
        if let Some(count) = pool.integer("max_idle", 0..=100_000) {
            upstream.pool.max_idle = count;
        }
        if let Some(count) = pool.integer("max_active", 1..=100_000) {
            upstream.pool.max_active = count;
        }
        upstream.pool.max_per_client = pool
            .integer("max_per_client", 1..=100_000)
            .unwrap_or((upstream.pool.max_active / 16).max(16));
        if let Some(time) = pool.duration("idle_timeout", MILLISECOND..=HOUR) {
            upstream.pool.idle_timeout = time;
        }
        pool.finish();
    }
    upstream.breaker = breaker(&section);
    upstream.health = section.section("health").map(health);
    section.finish();
    upstream
}

fn policy(section: &Section<'_>) -> Policy {
    let hash_on = section.parsed("hash_on", HASH_ON_FORMS, |text| text.parse().ok());
    match section.text("policy").as_deref() {
        None | Some("round-robin") => {
            if hash_on.is_some() {
                section.problem("hash_on", "has a meaning with policy = \"ring-hash\" only");
            }
            Policy::RoundRobin
        }
        Some("ring-hash") => {
            section.require("hash_on", HASH_ON_FORMS);
            Policy::RingHash(hash_on.unwrap_or(HashOn::Ip))
        }
        Some(other) => {
            section.problem("policy", one_of(other, &["round-robin", "ring-hash"]));
            Policy::RoundRobin
        }
    }
}

fn endpoints(section: &Section<'_>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let entries = section.sections("endpoints");
    if entries.len() > ENDPOINTS_MAX || section.value("endpoints").is_none() || entries.is_empty() {
        section.problem(
            "endpoints",
            format_args!("must hold 1 to {ENDPOINTS_MAX} endpoints"),
        );
    }
    for entry in entries {
        entry.require("address", ENDPOINT_FORM);
        let address = entry.parsed("address", ENDPOINT_FORM, endpoint_address);
        let weight = entry.integer("weight", 1..=1000).unwrap_or(1);
        if let Some(address) = address {
            if endpoints.iter().any(|other| other.address == address) {
                entry.problem("address", "must not be listed twice; use weight");
            }
            endpoints.push(Endpoint { address, weight });
        }
        entry.finish();
    }
    endpoints
}

fn breaker(upstream: &Section<'_>) -> Option<BreakerConfig> {
    let mut config = BreakerConfig::default();
    if upstream.value("breaker") == Some(&toml::Value::Boolean(false)) {
        return None;
    }
    let Some(section) = upstream.section("breaker") else {
        return Some(config);
    };
    // The window is cut into ten slots, whatever its length.
    config.slots = 10;
    if let Some(window) = section.duration("window", 10 * MILLISECOND..=HOUR) {
        config.slot = window / 10;
    }
    if let Some(count) = section.integer("min_requests", 1..=1_000_000) {
        config.min_requests = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    }
    if let Some(share) = section.ratio("failure_ratio") {
        config.failure_ratio = share;
    }
    // 0 = the ratio alone.
    if let Some(count) = section.integer("consecutive_failures", 0..=1_000_000) {
        config.consecutive_failures = NonZeroU32::new(count);
    }
    if let Some(time) = section.duration("open_for", MILLISECOND..=24 * HOUR) {
        config.open_for = time;
        config.open_for_max = config.open_for_max.max(time);
    }
    if let Some(time) = section.duration("open_for_max", MILLISECOND..=24 * HOUR) {
        config.open_for_max = time;
    }
    if let Some(time) = section.duration("probe_deadline", MILLISECOND..=24 * HOUR) {
        config.probe_deadline = time;
    }
    for problem in config.problems() {
        upstream.problem("breaker", problem);
    }
    section.finish();
    Some(config)
}

fn health(section: Section<'_>) -> Health {
    let path = section.parsed("path", "a path such as /healthz", |text| {
        let is_target = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok();
        is_target.then(|| text.to_owned())
    });
    let count = |key| section.integer(key, 1..=100);
    let interval = section
        .duration("interval", 10 * MILLISECOND..=HOUR)
        .unwrap_or(Duration::from_secs(2));
    let health = Health {
        path: path.unwrap_or_else(|| "/".to_owned()),
        interval,
        timeout: section
            .duration("timeout", MILLISECOND..=HOUR)
            .unwrap_or(interval.min(Duration::from_secs(1))),
        healthy: count("healthy").unwrap_or(2),
        unhealthy: count("unhealthy").unwrap_or(3),
    };
    if health.timeout > health.interval {
        section.problem(
            "timeout",
            "must not be longer than interval: checks would overlap",
        );
    }
    section.finish();
    health
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_keys_are_read_as_written() {
        assert_eq!("ip".parse(), Ok(HashOn::Ip));
        assert_eq!("cookie:sid".parse(), Ok(HashOn::Cookie("sid".into())));
        for bad in ["", "header:", "header:a b", "cookie:", "jwt:sub", "ip:x"] {
            assert!(bad.parse::<HashOn>().is_err(), "{bad}");
        }
    }
}
