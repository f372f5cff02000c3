//! What the edge counts, and where Prometheus reads it.
//!
//! Every core counts into plain cells of its own ([`LocalCounter`], [`LocalGauge`]) and hands the sums over ten times a second: the request
//! path touches no memory another core writes. So do its histograms ([`LocalHistogram`]). Labels come from closed sets, and every
//! series exists at 0 from the start, so that a rate is defined before the first event. Routes and upstreams keep their series by name:
//! one that is taken out of the configuration and put back goes on counting.

mod histogram;
mod local;

mod connection;
mod request;
mod shared;
mod upstream;

mod help;
mod open_metrics;
mod process;
mod recorder;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

pub use self::{
    connection::ConnectionMeters,
    histogram::LocalHistogram,
    local::{LocalCounter, LocalGauge},
    open_metrics::open_metrics,
    recorder::{UPKEEP_EVERY, install, page},
    request::{Outcome, RouteMeters},
    shared::{BoundMeters, BreakerMeters, HealthMeter, LimitMeters},
    upstream::{Attempt, UpstreamMeters},
};

/// The route of requests that match no other.
pub const NO_ROUTE: &str = "none";

/// Everything that one core counts.
#[derive(Debug)]
pub struct Meters {
    /// Of the clients' connections.
    pub connections: Rc<ConnectionMeters>,
    routes: RefCell<BTreeMap<String, Rc<RouteMeters>>>,
    upstreams: RefCell<BTreeMap<String, Rc<UpstreamMeters>>>,
}

impl Meters {
    /// Counts of connections; those of routes and upstreams are made when they are first asked for.
    pub fn new() -> Self {
        Self {
            connections: Rc::new(ConnectionMeters::new()),
            routes: RefCell::default(),
            upstreams: RefCell::default(),
        }
    }

    /// The counts of a route.
    pub fn route(&self, name: &str) -> Rc<RouteMeters> {
        let mut routes = self.routes.borrow_mut();
        let meters = routes
            .entry(name.to_owned())
            .or_insert_with(|| Rc::new(RouteMeters::new(name)));
        Rc::clone(meters)
    }

    /// The counts of an upstream.
    pub fn upstream(&self, name: &str) -> Rc<UpstreamMeters> {
        let mut upstreams = self.upstreams.borrow_mut();
        let meters = upstreams.entry(name.to_owned()).or_insert_with(|| {
            let meters = UpstreamMeters::new(name);
            meters.create();
            Rc::new(meters)
        });
        Rc::clone(meters)
    }

    /// Hands over what was counted since the last time.
    pub fn flush(&self) {
        self.connections.flush();
        self.routes
            .borrow()
            .values()
            .for_each(|route| route.flush());
        let upstreams = self.upstreams.borrow();
        upstreams.values().for_each(|upstream| upstream.flush());
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}
