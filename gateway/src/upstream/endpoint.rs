//! One server of an upstream, as all cores see it: its address, its breaker, its health.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use limiter::breaker::{Breaker, Permit, State, Transition};
use tokio::{
    sync::{Notify, mpsc::UnboundedSender},
    time::Instant,
};

use crate::{
    config,
    meters::{BreakerMeters, HealthMeter},
};

/// One server of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    address: Box<str>,
    /// `None` = switched off in the configuration.
    breaker: Option<Breaker>,
    /// What the active health check says; true without one.
    is_healthy: AtomicBool,
    health: HealthMeter,
}

/// A breaker went from one state to another: a line of the log.
#[derive(Clone, Debug)]
pub struct BreakerChange {
    pub upstream: Arc<str>,
    pub endpoint: Arc<str>,
    /// From where to where.
    pub transition: Transition,
}

/// Whether a request may be sent to an endpoint.
#[derive(Debug)]
pub enum Admission {
    /// It may. The permit hears how it ended; there is none without a breaker.
    Granted(Option<Permit>),
    /// Its health check fails.
    Unhealthy,
    /// Its breaker is open for at least this long.
    Rejected(Duration),
}

impl Endpoint {
    pub(super) fn new(
        upstream: &config::Upstream,
        address: &str,
        now: Instant,
        changed: &Arc<Notify>,
        told: &UnboundedSender<BreakerChange>,
    ) -> Self {
        let meters = BreakerMeters::new(&upstream.name, address);
        let breaker = upstream.breaker.map(|config| {
            let (upstream, endpoint): (Arc<str>, Arc<str>) =
                (upstream.name.as_str().into(), address.into());
            let (changed, told) = (Arc::clone(changed), told.clone());
            // Under the breaker's lock, which all cores share: the line is written elsewhere.
            Breaker::observed(config, now, move |transition| {
                meters.enter(transition.to);
                changed.notify_waiters();
                let _ = told.send(BreakerChange {
                    upstream: Arc::clone(&upstream),
                    endpoint: Arc::clone(&endpoint),
                    transition,
                });
            })
        });
        Self {
            address: address.into(),
            breaker,
            is_healthy: AtomicBool::new(true),
            health: HealthMeter::new(&upstream.name, address),
        }
    }

    /// `host:port` or `unix:/path`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks to send one request.
    pub fn admit(&self, now: Instant) -> Admission {
        // Relaxed: a request that slips through right after a failed check is no worse than one right before it.
        if !self.is_healthy.load(Ordering::Relaxed) {
            return Admission::Unhealthy;
        }
        match self
            .breaker
            .as_ref()
            .map(|breaker| breaker.try_acquire(now))
        {
            None => Admission::Granted(None),
            Some(Ok(permit)) => Admission::Granted(Some(permit)),
            Some(Err(rejected)) => Admission::Rejected(rejected.retry_after),
        }
    }

    /// Whether one request is out to see if it is well again, and all others wait for what comes of it.
    pub fn is_probed(&self) -> bool {
        let state = self.breaker.as_ref().map(Breaker::state);
        state == Some(State::HalfOpen) && self.is_healthy()
    }

    /// What the health check found.
    pub fn set_healthy(&self, is_healthy: bool) {
        self.is_healthy.store(is_healthy, Ordering::Relaxed);
        self.health.show(is_healthy);
    }

    /// What the health check said last.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }
}
