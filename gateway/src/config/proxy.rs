//! Reads `[[upstream]]`, `[[route]]` and `[[limit]]`.

use std::{num::NonZeroU32, time::Duration};

use http::{Method, StatusCode};
use limiter::{
    breaker::BreakerConfig,
    rate::{Rate, RateQuota},
};

use super::{
    ENDPOINTS_MAX, Endpoint, Health, Limit, Policy, Pool, Route, Target, Upstream,
    section::{Section, one_of},
    values::{self, HASH_ON_FORMS, LimitKey},
};

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
    // Below the 5 s of node's default keep-alive: the side that closes first must be ours.
    idle_timeout: Duration::from_secs(4),
};

/// 24 bytes each, allocated at start: 1.5 MiB.
const MAX_KEYS: u64 = 65_536;

const HOUR: Duration = Duration::from_secs(3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Policies of the design that are not built yet. Naming one is a clear problem, not a surprise.
const POLICIES_LATER: [&str; 4] = ["weighted", "least-requests", "p2c-ewma", "maglev"];

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
        upstream.retries = retries as usize;
    }
    if let Some(pool) = section.section("pool") {
        if let Some(count) = pool.integer("max_idle", 0..=100_000) {
            upstream.pool.max_idle = count as usize;
        }
        if let Some(count) = pool.integer("max_active", 1..=100_000) {
            upstream.pool.max_active = count as usize;
        }
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
            if section.value("hash_on").is_none() {
                section.missing("hash_on", HASH_ON_FORMS);
            }
            Policy::RingHash(hash_on.unwrap_or(values::HashOn::Ip))
        }
        Some(later) if POLICIES_LATER.contains(&later) => {
            section.problem(
                "policy",
                "not available yet: must be one of round-robin, ring-hash",
            );
            Policy::RoundRobin
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
        if entry.value("address").is_none() {
            entry.missing("address", "host:port");
        }
        let address = entry.parsed("address", "host:port", values::host_port);
        let weight = entry.integer("weight", 1..=1000).unwrap_or(1) as u32;
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
        config.min_requests = NonZeroU32::new(count as u32).unwrap_or(NonZeroU32::MIN);
    }
    if let Some(share) = section.ratio("failure_ratio") {
        config.failure_ratio = share;
    }
    // 0 = the ratio alone.
    if let Some(count) = section.integer("consecutive_failures", 0..=1_000_000) {
        config.consecutive_failures = NonZeroU32::new(count as u32);
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
        text.starts_with('/').then(|| text.to_owned())
    });
    let count = |key| section.integer(key, 1..=100).map(|count| count as u32);
    let health = Health {
        path: path.unwrap_or_else(|| "/".to_owned()),
        interval: section
            .duration("interval", 10 * MILLISECOND..=HOUR)
            .unwrap_or(Duration::from_secs(2)),
        timeout: section
            .duration("timeout", MILLISECOND..=HOUR)
            .unwrap_or(Duration::from_secs(1)),
        healthy: count("healthy").unwrap_or(2),
        unhealthy: count("unhealthy").unwrap_or(3),
    };
    section.finish();
    health
}

/// All limits.
pub(super) fn limits(root: &Section<'_>) -> Vec<Limit> {
    root.sections("limit").into_iter().map(limit).collect()
}

fn limit(section: Section<'_>) -> Limit {
    let key = section.parsed("key", "ip or header:NAME", |text| text.parse().ok());
    let form = "<count>/<time> such as 100/s or 30/m";
    if section.value("rate").is_none() {
        section.missing("rate", form);
    }
    let rate: Option<Rate> = section.parsed("rate", form, |text| text.parse().ok());
    let rate = rate.unwrap_or(Rate {
        count: NonZeroU32::MIN,
        per: Duration::from_secs(1),
    });
    // Without a burst the bucket holds what the rate's own time span brings.
    let burst = section
        .integer("burst", 1..=u64::from(u32::MAX))
        .and_then(|count| NonZeroU32::new(count as u32))
        .unwrap_or(rate.count);
    let one_a_second = || {
        RateQuota::try_new(NonZeroU32::MIN, Duration::from_secs(1), NonZeroU32::MIN)
            .expect("one a second is within the range")
    };
    let quota = RateQuota::try_from_rate(rate, burst).unwrap_or_else(|error| {
        section.problem("rate", error);
        one_a_second()
    });
    let limit = Limit {
        name: name(&section, None).unwrap_or_default(),
        key: key.unwrap_or(LimitKey::Ip),
        quota,
        max_keys: section
            .integer("max_keys", 8..=100_000_000)
            .unwrap_or(MAX_KEYS) as usize,
        report: section.flag("report").unwrap_or(false),
    };
    section.finish();
    limit
}

/// All routes.
pub(super) fn routes(
    root: &Section<'_>,
    upstreams: &[Upstream],
    limits: &[Limit],
    max_body: u64,
) -> Vec<Route> {
    let read = |section| route(section, upstreams, limits, max_body);
    let routes: Vec<Route> = root.sections("route").into_iter().map(read).collect();
    if root.value("route").is_none() {
        root.missing("route", "at least one [[route]]");
    }
    routes
}

fn route(section: Section<'_>, upstreams: &[Upstream], limits: &[Limit], max_body: u64) -> Route {
    let path = section.parsed("path", "a path that starts with /", |text| {
        let is_path = text.starts_with('/') && !text.contains(['?', '#', ' ', '%']);
        is_path.then(|| text.to_owned())
    });
    if section.value("path").is_none() {
        section.missing("path", "a path that starts with /");
    }
    let path = path.unwrap_or_else(|| "/".to_owned());
    let host = section.parsed("host", "a host name, or *.NAME", |text| {
        let plain = text.strip_prefix("*.").unwrap_or(text);
        values::is_token(plain).then(|| text.to_ascii_lowercase())
    });
    let default_name = match &host {
        Some(host) => format!("{host}{path}"),
        None => path.clone(),
    };
    let mut route_limits = Vec::new();
    for wanted in section.texts("limits").unwrap_or_default() {
        match limits.iter().position(|limit| limit.name == wanted) {
            Some(at) => route_limits.push(at),
            None => {
                let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
                section.problem(
                    "limits",
                    format_args!("no [[limit]] {wanted:?}: {}", one_of(&wanted, &names)),
                );
            }
        }
    }
    let route = Route {
        name: name(&section, Some(default_name)).unwrap_or_default(),
        host,
        methods: methods(&section),
        target: target(&section, upstreams),
        limits: route_limits,
        max_body: section.size("max_body", 0..=1 << 40).unwrap_or(max_body),
        path,
    };
    section.finish();
    route
}

fn methods(section: &Section<'_>) -> Vec<Method> {
    let mut methods = Vec::new();
    for text in section.texts("methods").unwrap_or_default() {
        let is_upper = text.chars().all(|c| c.is_ascii_uppercase());
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if is_upper => methods.push(method),
            _ => section.problem(
                "methods",
                format_args!("{text:?} must be a method such as GET"),
            ),
        }
    }
    methods
}

fn target(section: &Section<'_>, upstreams: &[Upstream]) -> Target {
    let upstream = section.text("upstream");
    let handler = section.text("handler");
    let to = section.parsed("to", "https, or http(s)://host", |text| {
        let is_url = text.starts_with("https://") || text.starts_with("http://");
        let is_fine = text == "https" || (is_url && text.parse::<http::Uri>().is_ok());
        is_fine.then(|| text.trim_end_matches('/').to_owned())
    });
    let status = section.integer("status", 301..=308);
    let is_redirect = handler.as_deref() == Some("redirect");
    if !is_redirect && (section.value("to").is_some() || section.value("status").is_some()) {
        section.problem("to", "has a meaning with handler = \"redirect\" only");
    }
    match (upstream, handler.as_deref()) {
        (Some(name), None) => match upstreams.iter().position(|known| known.name == name) {
            Some(at) => return Target::Upstream(at),
            None => {
                let names: Vec<&str> = upstreams.iter().map(|known| known.name.as_str()).collect();
                section.problem(
                    "upstream",
                    format_args!("no such [[upstream]]: {}", one_of(&name, &names)),
                );
            }
        },
        (None, Some("sales")) => return Target::Sales,
        (None, Some("payments")) => return Target::Payments,
        (None, Some("redirect")) => {
            if section.value("to").is_none() {
                section.missing("to", "https, or http(s)://host");
            }
            let status = match status {
                Some(301) => StatusCode::MOVED_PERMANENTLY,
                Some(302) => StatusCode::FOUND,
                Some(307) => StatusCode::TEMPORARY_REDIRECT,
                None | Some(308) => StatusCode::PERMANENT_REDIRECT,
                Some(_) => {
                    section.problem("status", "must be 301, 302, 307 or 308");
                    StatusCode::PERMANENT_REDIRECT
                }
            };
            return Target::Redirect {
                to: to.unwrap_or_default(),
                status,
            };
        }
        (None, Some("static")) => {
            section.problem(
                "handler",
                "not available yet: must be one of sales, payments, redirect",
            );
        }
        (None, Some(other)) => {
            section.problem("handler", one_of(other, &["sales", "payments", "redirect"]));
        }
        (None, None) | (Some(_), Some(_)) => {
            section.problem("upstream", "a route needs either upstream or handler");
        }
    }
    Target::Upstream(usize::MAX)
}

/// A name for references and metric labels.
fn name(section: &Section<'_>, default: Option<String>) -> Option<String> {
    let form = "a name of letters, digits, - _ and .";
    if section.value("name").is_none() {
        if default.is_none() {
            section.missing("name", form);
        }
        return default;
    }
    section.parsed("name", form, |text| {
        values::is_token(text).then(|| text.to_owned())
    })
}
