//! The configuration: TOML in, real types out, every problem reported at once.
//!
//! The start of the program: `main.rs` reads a file into a [`Config`], `compose/` builds from it, and nothing later sees the file.
//! Unknown keys are problems. Secrets are named by file or environment variable, never written in the file itself.
//! Files and environment come in through [`Inputs`], so that a test needs neither.

mod server;

mod log;

mod listener;

mod upstream;

mod limit;

mod route;

mod admin;

mod values;

mod references;

mod warnings;

pub(crate) mod fixed;

use std::{
    io,
    path::{Path, PathBuf},
};

use http::HeaderName;
use seckill::api::identity::Identity;
pub use settings::Inputs;
use settings::{Problems, Section};

pub(crate) use self::values::UNIX;
pub use self::{
    admin::Admin,
    limit::{Limit, LimitKey},
    listener::{Listener, Tls},
    log::{AccessLog, Log},
    route::{Route, Target},
    server::Server,
    upstream::{ENDPOINTS_MAX, Endpoint, HashOn, Health, Policy, Pool, Upstream},
};
use crate::http::network;

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which parts this process runs. Not in the file: given by `--role`.
    pub role: Role,
    /// Whether this machine's clock is believed whatever store and ledger know. Not in the file: given by `--accept-clock`.
    pub accepts_clock: bool,
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
    #[default]
    All,
    /// Listeners and handlers, no settlement workers.
    Edge,
    /// Settlement workers and the admin listener, no listeners.
    Worker,
}

/// Why there is no configuration. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read { path: PathBuf, error: io::Error },
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
        let server = server::server(root, inputs);
        let log = log::log(root, inputs);
        let listeners = listener::listeners(root, inputs);
        let upstreams = upstream::upstreams(root);
        let limits = limit::limits(root);
        let routes = route::routes(root, &upstreams, &limits, server.max_body);
        let admin = admin::admin(root, inputs);
        let config = Self {
            role: Role::default(),
            accepts_clock: false,
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
