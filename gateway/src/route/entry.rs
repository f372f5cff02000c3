//! A route as a core serves it: where it leads, and what holds for its requests.

use std::{rc::Rc, sync::Arc};

use http::{HeaderValue, Method, StatusCode};
use tokio::{runtime::Handle, sync::Semaphore};

use super::Late;
use crate::{limit::Bucket, meters::RouteMeters, upstream::Upstream};

/// A route as a core serves it. A request keeps the one it was found, also when the configuration is replaced.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// What is counted of its requests.
    pub meters: Rc<RouteMeters>,
    pub target: Target,
    /// Whether it is the payment API, whose errors have Stripe's form.
    pub is_payment: bool,
    /// The buckets it draws from.
    pub limits: Vec<Arc<Bucket>>,
    /// The most bytes of a request's body.
    pub max_body: u64,
    /// Origins whose pages may call it; empty = its own only.
    pub allow_origins: Vec<HeaderValue>,
    /// How much of a request's body is read before the upstream is asked.
    pub request_buffer: usize,
    /// How much of an answer may be taken off the upstream's connection for a client that reads it slowly.
    pub response_buffer: u64,
}

/// Where a route leads.
#[derive(Debug)]
pub(crate) enum Target {
    /// The shop's servers.
    Upstream(Rc<Upstream>),
    /// A router of this process.
    Handler {
        router: Late,
        /// Where a request of it runs.
        run_on: fn(&Method, &str) -> RunOn,
        /// What does not run on the core runs here.
        control: Handle,
        /// How many requests may be there at a time.
        control_permits: Arc<Semaphore>,
    },
    Redirect {
        /// `https` or an origin.
        to: String,
        status: StatusCode,
    },
}

/// Where a handler's request runs. What waits for SQL must not run on a core: one slow query would hold nobody up, but decoding a page of
/// rows would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunOn {
    /// The core that the request came to.
    Core,
    Control,
}
