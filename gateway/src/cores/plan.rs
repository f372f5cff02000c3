//! What the cores serve: everything that a configuration says about requests, built once for all cores and replaced whole.
//!
//! Identity is a name or an address, never a position: the buckets, breakers, health and connections of what stays are taken over from the
//! plan before.

use std::{fmt, rc::Rc, sync::Arc};

use http::Method;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc::UnboundedSender},
    time::Instant,
};

use crate::{
    config::{self, Config},
    http::headers::Via,
    limit::Bucket,
    meters::{Meters, NO_ROUTE},
    route::{Late, Route, RouteTable, Routes, RunOn, Target},
    snapshot::Snapshot,
    upstream::{self, BreakerChange, Upstream},
};

/// A router of this process, and where its requests run.
#[derive(Clone)]
pub(crate) struct Handlers {
    /// The sale API.
    pub sales: Late,
    /// The payment API.
    pub payments: Late,
    /// Where handlers run that wait on SQL: its connections belong to the control runtime.
    pub control: Handle,
    /// Requests that may be there at a time.
    pub control_permits: Arc<Semaphore>,
}

/// What the cores serve.
#[derive(Debug)]
pub(crate) struct Plan {
    pub config: Config,
    /// Who this process is to others.
    pub via: Via,
    /// In the order of the configuration.
    pub upstreams: Vec<Arc<upstream::Shared>>,
    /// In the order of the configuration.
    pub buckets: Vec<Arc<Bucket>>,
    handlers: Handlers,
    /// Counts the plans of this process from 1.
    pub generation: u64,
}

impl Plan {
    /// The first plan of a process.
    pub(crate) fn first(
        config: Config,
        handlers: Handlers,
        changes: &UnboundedSender<BreakerChange>,
    ) -> Self {
        Self::build(config, handlers, Via::new(rand::random()), None, changes)
    }

    /// The plan after this one.
    pub(crate) fn next(&self, config: Config, changes: &UnboundedSender<BreakerChange>) -> Self {
        let (handlers, via) = (self.handlers.clone(), self.via.clone());
        Self::build(config, handlers, via, Some(self), changes)
    }

    fn build(
        config: Config,
        handlers: Handlers,
        via: Via,
        before: Option<&Self>,
        changes: &UnboundedSender<BreakerChange>,
    ) -> Self {
        let now = Instant::now();
        let identity = config.seckill.as_ref().map(|sale| &sale.buyer);
        let bucket = |limit: &config::Limit| {
            let kept = before.and_then(|before| {
                let mut buckets = before.buckets.iter();
                buckets
                    .find(|bucket| bucket.config == *limit)
                    .map(Arc::clone)
            });
            kept.unwrap_or_else(|| Arc::new(Bucket::new(limit.clone(), identity, now)))
        };
        let upstream = |upstream: &config::Upstream| {
            let before = before.and_then(|before| {
                let mut upstreams = before.upstreams.iter();
                upstreams.find(|before| before.config.name == upstream.name)
            });
            let before = before.map(Arc::as_ref);
            Arc::new(upstream::Shared::new(
                upstream.clone(),
                before,
                now,
                changes,
            ))
        };
        Self {
            buckets: config.limits.iter().map(bucket).collect(),
            upstreams: config.upstreams.iter().map(upstream).collect(),
            generation: before.map_or(1, |before| before.generation + 1),
            handlers,
            via,
            config,
        }
    }

    /// The upstreams as one core uses them, in the order of the configuration.
    pub(super) fn upstreams(
        &self,
        before: &[Rc<Upstream>],
        server: &Rc<Snapshot<config::Server>>,
        meters: &Meters,
    ) -> Vec<Rc<Upstream>> {
        let upstream = |shared: &Arc<upstream::Shared>| {
            let name = &shared.config.name;
            let before = before
                .iter()
                .find(|before| before.shared.config.name == *name);
            let before = before.map(Rc::as_ref);
            let (shared, meters) = (Arc::clone(shared), meters.upstream(name));
            Rc::new(Upstream::new(shared, before, server, meters))
        };
        self.upstreams.iter().map(upstream).collect()
    }

    /// The routes as one core serves them.
    pub(super) fn routes(&self, upstreams: &[Rc<Upstream>], meters: &Meters) -> Routes {
        let route = |route: &config::Route| {
            Rc::new(Route {
                name: route.name.as_str().into(),
                meters: meters.route(&route.name),
                target: self.target(&route.target, upstreams),
                is_payment: route.target == config::Target::Payments,
                limits: route
                    .limits
                    .iter()
                    .map(|at| Arc::clone(&self.buckets[*at]))
                    .collect(),
                max_body: route.max_body,
                allow_origins: route.allow_origins.clone(),
                request_buffer: route.request_buffer,
                response_buffer: route.response_buffer,
            })
        };
        let routes = &self.config.routes;
        Routes::new(
            RouteTable::new(routes),
            routes.iter().map(route).collect(),
            NO_ROUTE.into(),
            meters.route(NO_ROUTE),
            self.config.log.sample_refusals,
        )
    }

    fn target(&self, target: &config::Target, upstreams: &[Rc<Upstream>]) -> Target {
        let handler = |router: &Late, run_on: fn(&Method, &str) -> RunOn| Target::Handler {
            router: router.clone(),
            run_on,
            control: self.handlers.control.clone(),
            control_permits: Arc::clone(&self.handlers.control_permits),
        };
        match target {
            config::Target::Upstream(at) => Target::Upstream(Rc::clone(&upstreams[*at])),
            config::Target::Sales => handler(&self.handlers.sales, sales_run_on),
            config::Target::Payments => handler(&self.handlers.payments, |_, _| RunOn::Control),
            config::Target::Redirect { to, status } => Target::Redirect {
                to: to.clone(),
                status: *status,
            },
        }
    }
}

/// A purchase is decided by the store, on the core that it came to. Everything else waits for SQL.
fn sales_run_on(method: &Method, path: &str) -> RunOn {
    match seckill::api::is_purchase(method, path) {
        true => RunOn::Core,
        false => RunOn::Control,
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("sales", &self.sales.get().is_some())
            .field("payments", &self.payments.get().is_some())
            .finish()
    }
}
