//! The configuration: TOML in, real types out, every problem reported at once.
//!
//! The start of the program: `main.rs` reads a file into a [`Config`], `compose/` builds from it, and nothing later sees the file.
//! Unknown keys are problems. Secrets are named by file or environment variable, never written in the file itself.
//! Files and environment come in through [`Inputs`], so that a test needs neither.

pub mod values;

mod edge;

mod upstreams;

mod routes;

mod references;

mod warnings;

pub mod fixed;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use limiter::{breaker::BreakerConfig, rate::RateQuota};
use seckill::api::identity::Identity;

pub use settings::Inputs;
use settings::{Problems, Section};

use self::values::{HashOn, LimitKey};
use crate::{
    http::{
        MinRate,
        network::{self, Cidr},
    },
    tls::Certificate,
};

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which parts this process runs. Not in the file: given by `--role`.
    pub role: Role,
    /// Limits and times of the edge as a whole.
    pub server: Server,
    /// What happens to log lines.
    pub log: Log,
    /// Sockets of the data plane; at least one.
    pub listeners: Vec<Listener>,
    /// The shop's own servers, by name.
    pub upstreams: Vec<Upstream>,
    /// Which request goes where; at least one.
    pub routes: Vec<Route>,
    /// Token buckets that routes name.
    pub limits: Vec<Limit>,
    /// The admin listener.
    pub admin: Admin,
    /// `[seckill]`.
    pub seckill: Option<seckill::config::Config>,
    /// `[payment]`.
    pub payment: Option<payment::Config>,
    /// What is allowed and may still be a mistake.
    pub warnings: Vec<String>,
    /// The file as it was read, to find what has changed since.
    pub source: toml::Table,
}

/// Which parts a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// Listeners and handlers, no settlement workers.
    Edge,
    /// Settlement workers and the admin listener, no data-plane listeners.
    Worker,
}

/// `[server]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Data-plane cores; 0 in the file means one per core of the machine.
    pub workers: usize,
    /// How long a drain waits for requests in flight before it cuts them off.
    pub drain_deadline: Duration,
    /// How long a draining process still accepts, so that load balancers can see `/ready` fail first.
    pub drain_delay: Duration,
    /// From accept to the end of the first request's header; a TLS handshake gets as much again.
    pub header_timeout: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// The longest pause between two pieces of a request's body.
    pub body_timeout: Duration,
    /// The longest a client may leave a response unread. It has to take 64 KiB at most in this time to go on.
    pub send_timeout: Duration,
    /// Whether this process names itself in the `Via` of what it passes on; loops are found by it.
    pub via: bool,
    /// How slowly a client may send or read: who is behind it by more than `body_timeout` or `send_timeout` is cut off.
    pub min_rate: MinRate,
    /// What answers of slow readers may occupy in memory, per core.
    pub buffer_memory: u64,
    /// What more they may occupy in temporary files, per core.
    pub buffer_disk: u64,
    /// A tunnel (WebSocket) is closed after this without a byte in either direction.
    pub tunnel_timeout: Duration,
    /// The most bytes of a request's line and header.
    pub max_header_bytes: usize,
    /// The most header lines of a request.
    pub max_headers: usize,
    /// The most bytes of a request's body, unless the route says otherwise.
    pub max_body: u64,
    /// Client connections at a time, tunnels included, over all cores; above it the listening queue waits.
    pub max_connections: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub h2_streams: u32,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Headers that say who somebody is; removed from the requests of all peers but [`trusted_headers_from`](Self::trusted_headers_from).
    pub trusted_headers: Vec<HeaderName>,
    /// Peers that log people in, and therefore set or remove the trusted headers of every request. A proxy that only passes requests
    /// on is none of them: it would pass on what a visitor claims.
    pub trusted_headers_from: Vec<Cidr>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where access lines go.
    pub access: AccessLog,
    /// Of refusals (429 and 409), one in this many is logged.
    pub sample_refusals: u64,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// The process's standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// `[[listener]]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it listens. Port 0 takes a free one.
    pub address: SocketAddr,
    /// `None` = plain HTTP.
    pub tls: Option<Tls>,
    /// HTTP/2: by ALPN on TLS, by prior knowledge on a plain listener.
    pub h2: bool,
    /// HTTP/1.1.
    pub h1: bool,
}

/// The certificates of a listener.
#[derive(Clone, Debug)]
pub enum Tls {
    /// From files, read and parsed when the configuration was.
    Files(Vec<Arc<Certificate>>),
    /// Made at start for `localhost`: for trying things out.
    SelfSigned,
}

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
    /// `host:port`; names are looked up at every connect.
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

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in metrics and log lines.
    pub name: String,
    /// `shop.example`, `*.shop.example`, or any.
    pub host: Option<String>,
    /// The path's prefix, on segment borders.
    pub path: String,
    /// Empty = all.
    pub methods: Vec<Method>,
    /// Where it goes.
    pub target: Target,
    /// Indexes into [`Config::limits`].
    pub limits: Vec<usize>,
    /// The most bytes of a request's body.
    pub max_body: u64,
    /// Origins whose pages may call it, as browsers send them, or `*`.
    pub allow_origins: Vec<HeaderValue>,
    /// How many bytes of a request's body are read before the upstream is asked; 0 streams it from its first byte.
    pub request_buffer: usize,
    /// How many bytes of an answer are taken off the upstream's connection for a client that reads it slowly.
    pub response_buffer: u64,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An index into [`Config::upstreams`].
    Upstream(usize),
    /// The sale API.
    Sales,
    /// The payment API.
    Payments,
    /// A redirect to the same path elsewhere.
    Redirect {
        /// `https` (same host) or a URL's beginning.
        to: String,
        /// 301, 302, 307 or 308.
        status: StatusCode,
    },
}

/// `[[limit]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name in routes, metrics and response fields.
    pub name: String,
    /// Whose bucket.
    pub key: LimitKey,
    /// Speed and size of the bucket.
    pub quota: RateQuota,
    /// Buckets held at a time.
    pub max_keys: usize,
    /// Whether allowed answers carry the `RateLimit` field too.
    pub report: bool,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// If set, `/admin/*` needs this as a bearer token.
    pub token: Option<String>,
}

/// Why there is no configuration. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file can be read but not used. Every problem is listed.
    #[error("{} problem(s) in the configuration:\n{}", .0.len(), .0.join("\n"))]
    Problems(Vec<String>),
}

impl Config {
    /// Reads a file of this machine.
    pub fn try_load(path: &Path) -> Result<Self, ConfigError> {
        let inputs = Inputs::of_this_machine();
        let text = (inputs.read)(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::try_parse_bytes(&text, &inputs)
    }

    /// Reads a text. Files it names are read through `inputs`.
    pub fn try_parse(text: &str, inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        Self::try_parse_bytes(text.as_bytes(), inputs)
    }

    fn try_parse_bytes(text: &[u8], inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let table = settings::parse(text)
            .map_err(|problem| ConfigError::Problems(vec![problem.to_string()]))?;
        let problems = Problems::default();
        let root = Section::root(table.clone(), &problems);
        let mut config = Self::read(&root, inputs);
        config.source = table;
        root.finish();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Problems(problems.into_lines()))
        }
    }

    /// Who the buyer is may only be said by a hop that logs people in, whether the file lists that header or not: otherwise anybody
    /// could buy, read and cancel in anybody's name.
    fn guard_buyer_header(mut self) -> Self {
        if let Some(buyer) = self.buyer_header().cloned()
            && !self.server.trusted_headers.contains(&buyer)
        {
            self.server.trusted_headers.push(buyer);
        }
        self.warnings = warnings::of(&self);
        self
    }

    /// The header that names the buyer, unless a token does.
    fn buyer_header(&self) -> Option<&HeaderName> {
        match &self.seckill.as_ref()?.buyer {
            Identity::Header(name) => Some(name),
            Identity::Jwt(_) => None,
        }
    }

    /// Believes what programs on this machine say about who the buyer is: for trying things out without a login proxy.
    pub fn trust_local_buyers(&mut self) {
        self.server.trusted_headers_from.extend(network::LOOPBACK);
        self.warnings = warnings::of(self);
    }

    /// Reads what is there and fills what is wrong with something harmless: the result counts only without problems.
    fn read(root: &Section<'_>, inputs: &Inputs<'_>) -> Self {
        let server = edge::server(root, inputs);
        let log = edge::log(root, inputs);
        let listeners = edge::listeners(root, inputs);
        let upstreams = upstreams::upstreams(root);
        let limits = routes::limits(root);
        let routes = routes::routes(root, &upstreams, &limits, server.max_body);
        let admin = edge::admin(root, inputs);
        let config = Self {
            role: Role::default(),
            server,
            log,
            listeners,
            upstreams,
            routes,
            limits,
            admin,
            seckill: root
                .section("seckill")
                .and_then(|section| seckill::config::Config::read(section, inputs)),
            payment: root
                .section("payment")
                .and_then(|section| payment::Config::read(section, inputs)),
            warnings: Vec::new(),
            source: toml::Table::new(),
        };
        references::check(&config, root);
        config.guard_buyer_header()
    }
}

#[cfg(test)]
mod tests;
