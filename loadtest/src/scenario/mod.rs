//! What a run sends, to whom, and what must hold: the scenario, built in code or read from a TOML file.
//!
//! [`Scenario::from_toml`] and code share one judge, [`Scenario::check`], so a scenario built in code is refused for the
//! same reasons and in the same words as a file.

mod arrivals;
mod check;
mod curve;
mod defaults;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use settings::Inputs;

pub use settings::Problem;

pub(crate) use self::arrivals::Arrivals;
pub(crate) use self::curve::Curve;
use crate::outcome::Outcome;

/// One load test, complete.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Every choice of the run follows from it. Two runs with one seed send the same requests under the same keys,
    /// so a second run against the same sale wants another seed.
    pub seed: u64,
    /// Where the requests go.
    pub target: Target,
    /// The generator's own size.
    pub generator: Generator,
    /// The admin API that is asked after the run; without it nothing is reconciled.
    pub admin: Option<Admin>,
    /// When the arrivals happen.
    pub profile: Profile,
    /// What is bought. May be absent only if every arrival is a page view.
    pub sale: Option<Sale>,
    pub buyers: Buyers,
    /// Who sends the same request again on purpose.
    pub retry: Retry,
    pub bots: Bots,
    /// Pages of the shop, fetched through the proxy.
    pub page_views: PageViews,
    /// Payment of accepted orders; without it every order is abandoned.
    pub pay: Option<Pay>,
    /// What the run must reach.
    pub thresholds: Thresholds,
    /// How long the check after the run may wait.
    pub reconcile: ReconcileWait,
    /// Where every request and answer is written down, for [`crate::oracle`]. Not part of a scenario file: the command line's.
    pub history_file: Option<PathBuf>,
}

/// Everything wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// The server under test.
#[derive(Clone, Debug)]
pub struct Target {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    pub protocol: Protocol,
    /// Whom to trust, for `https`.
    pub trust: Trust,
    /// Name sent in SNI and checked in the certificate; the URL's host if absent.
    pub server_name: Option<String>,
}

/// HTTP version on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, keep-alive, one request at a time per connection.
    H1,
    /// HTTP/2, many requests per connection (over plain TCP: prior knowledge).
    H2,
}

impl Protocol {
    /// `h1` or `h2`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::H1 => "h1",
            Protocol::H2 => "h2",
        }
    }
}

/// How the server's certificate is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities that the system trusts; plain HTTP needs none.
    System,
    /// Certificates of the authorities in this PEM file.
    CaFile(PathBuf),
    /// Certificates of the authorities in this PEM text.
    CaPem(String),
    /// Any certificate; for a test bench only.
    Insecure,
}

/// The generator's own limits.
#[derive(Clone, Debug)]
pub struct Generator {
    /// Generator threads, each with its own runtime and its share of arrivals and connections.
    pub threads: usize,
    /// Connections over all threads.
    pub connections: usize,
    /// Concurrent requests per HTTP/2 connection.
    pub streams_per_connection: usize,
    /// Arrivals waiting or on the wire, over all threads; what comes beyond is shed.
    pub max_in_flight: usize,
    /// From the actual send to the last byte of the answer. A request that found no free connection for as long is shed.
    pub request_timeout: Duration,
}

/// The admin API, which is asked after the run.
#[derive(Clone, Debug)]
pub struct Admin {
    /// `http://127.0.0.1:9900`.
    pub url: String,
    /// File holding the bearer token, if the admin API wants one.
    pub token_file: Option<PathBuf>,
}

/// When the arrivals happen.
#[derive(Clone, Debug)]
pub struct Profile {
    pub shape: Shape,
    /// Random spacing with the same expected curve and the same total, instead of even spacing.
    pub poisson: bool,
    /// Wall clock of T0 in unix milliseconds; `None` starts as soon as connections stand.
    pub t0_unix_ms: Option<i64>,
}

/// The curve of arrivals.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// The same rate throughout.
    Constant { rate: f64, duration: Duration },
    /// A rate that changes linearly.
    Ramp {
        /// Arrivals per second at the start.
        from: f64,
        /// Arrivals per second at the end.
        to: f64,
        duration: Duration,
    },
    /// T0 of a flash sale: every buyer comes exactly once, most of them at once, the rest decaying exponentially.
    Spike {
        /// From T0 to the last arrival.
        duration: Duration,
        /// Share of the arrivals that falls …
        first_share: f64,
        /// … within this long after T0.
        first_within: Duration,
        /// Page views only, this long before T0.
        warm_up: Duration,
        /// Page views per second during the warm-up.
        warm_up_rate: f64,
    },
}

#[derive(Clone, Debug)]
pub struct Sale {
    /// Sale id, as in `/v1/sales/{sale}/orders`.
    pub id: String,
    /// Each purchase takes one of these, chosen from the seed.
    pub skus: Vec<String>,
    /// Units per purchase; of a cart, of each sku.
    pub quantity: u32,
    /// Share of the purchases that are carts, in percent: several skus, all or nothing. The sale must have been made for it.
    pub cart_percent: f64,
    /// Skus of one cart: the one that the seed chooses, and those after it in the list.
    pub cart_skus: usize,
}

#[derive(Clone, Debug)]
pub struct Buyers {
    /// Distinct identities. In a spike each of them comes once; in other shapes they come round again.
    pub count: u32,
    /// Header that carries the identity.
    pub header: String,
    /// Header that carries a client address of its own for every buyer (such as `x-forwarded-for`), for limits by address
    /// behind a trusted hop.
    pub address_header: Option<String>,
}

/// Purchases sent again on purpose, with the same key.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Share of the purchases, in percent.
    pub percent: f64,
    /// Of those, the share whose second copy goes out at the same instant as the first, in percent.
    pub concurrent_percent: f64,
    /// The others follow within this long.
    pub within: Duration,
}

/// Identities that hammer to be limited.
#[derive(Clone, Debug)]
pub struct Bots {
    pub count: u32,
    /// Purchases each of them attempts, every one under its own key.
    pub burst: u32,
    /// From T0, evenly over this long.
    pub within: Duration,
}

/// Pages of the shop, fetched through the proxy.
#[derive(Clone, Debug)]
pub struct PageViews {
    /// Paths, chosen from the seed.
    pub paths: Vec<String>,
    /// Share of all arrivals of the profile, 0 to 1 (below 1 in a spike).
    pub share: f64,
}

/// Payment of accepted orders.
#[derive(Clone, Debug)]
pub struct Pay {
    /// Share of the accepted orders, in percent. The rest is abandoned and times out, and so are the orders of carts.
    pub share_percent: f64,
    /// Of the payments, the share made with a card that is declined, in percent.
    pub decline_percent: f64,
    /// Secret key of the payment API.
    pub api_key: String,
    /// Amount of one payment in minor units.
    pub amount_minor: u64,
    /// Lower-case ISO currency.
    pub currency: String,
    /// How long after its order a payment starts.
    pub delay: Duration,
    /// Payments are spread over this much more.
    pub delay_spread: Duration,
}

/// What the run must reach.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// Limit on the 99th percentile per outcome, from the planned instant.
    pub p99: BTreeMap<Outcome, Duration>,
    /// Limit on errors per request, 0 to 1.
    pub max_error_share: Option<f64>,
    /// Limit on requests that had to be sent again because their connection broke, per request, 0 to 1.
    pub max_broken_share: Option<f64>,
    /// Limit on the 99th percentile of the generator's own schedule lag. Above it the run is not valid.
    pub max_schedule_lag: Duration,
}

/// How long the check after the run may wait.
#[derive(Clone, Debug)]
pub struct ReconcileWait {
    /// For the settlement to catch up.
    pub settle_timeout: Duration,
    /// For unpaid orders to be returned; zero does not wait for them.
    pub returns_timeout: Duration,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} problem(s) in the scenario", self.0.len())?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Scenario {
    /// A scenario with every default, to be filled in by code: one generator thread, 64 connections, HTTP/1.1, no admin,
    /// no payments, no bots.
    pub fn new(url: impl Into<String>, profile: Shape) -> Self {
        Scenario {
            seed: 1,
            target: Target {
                url: url.into(),
                protocol: Protocol::H1,
                trust: Trust::System,
                server_name: None,
            },
            generator: Generator::default(),
            admin: None,
            profile: Profile {
                shape: profile,
                poisson: false,
                t0_unix_ms: None,
            },
            sale: None,
            buyers: Buyers::default(),
            retry: Retry::default(),
            bots: Bots::default(),
            page_views: PageViews::default(),
            pay: None,
            thresholds: Thresholds::default(),
            reconcile: ReconcileWait::default(),
            history_file: None,
        }
    }

    /// Reads a scenario; every problem of the text is reported at once. `env` answers for `api_key_env`.
    pub fn from_toml(
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Scenario, Problems> {
        let inputs = Inputs {
            env,
            ..Inputs::of_this_machine()
        };
        parse::scenario(text, &inputs)
    }

    /// Reads a scenario file. Relative paths in it are relative to the working directory.
    pub fn load(path: &Path) -> anyhow::Result<Scenario> {
        let text = std::fs::read_to_string(path).context("cannot read the file")?;
        Ok(Scenario::from_toml(&text, &|name| {
            std::env::var(name).ok()
        })?)
    }

    /// Every value that cannot work; empty if the scenario can run.
    pub fn check(&self) -> Vec<Problem> {
        check::problems(self)
    }
}
