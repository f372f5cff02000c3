//! The circuit breaker of one endpoint: stop asking what keeps failing, and find out gently when it is back.
//!
//! On the path: between the choice of an endpoint and its connection pool.
//!
//! * `Closed`: traffic flows. Trips on too many consecutive failures, or on the failure ratio of an exact sliding window.
//! * `Open`: refused at once, for a time that doubles with every trip in a row, up to a cap.
//! * `HalfOpen`: exactly one probe is out. Success closes; failure, or no answer by the probe's deadline, opens again.
//!
//! [`BreakerCore`] is the pure state machine. [`Breaker`] holds it behind a mutex, hands out [`Permit`]s and tells an observer about
//! transitions.

mod config;

mod machine;
mod window;

mod permit;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

pub use self::{
    config::{BreakerConfig, BreakerConfigError},
    machine::{BreakerCore, Outcome, Rejected, State, Ticket, Transition},
    permit::Permit,
};

/// The breaker of one endpoint. A clone is another handle to the same breaker, so that all cores see one state.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held for one step of the state machine, and for the observer's call, so that it hears of transitions in their order.
    core: Mutex<BreakerCore>,
    observer: Option<Observer>,
}

type Observer = Box<dyn Fn(Transition) + Send + Sync>;

impl Breaker {
    /// A closed breaker that nobody observes.
    pub fn new(config: BreakerConfig, now: Instant) -> Self {
        Self::with_core(BreakerCore::new(config, now), None)
    }

    /// A closed breaker that tells `observer` about every transition, in order, from whatever thread caused it. The observer
    /// must be quick (set a gauge, add to a counter, log) and must not call this breaker.
    pub fn observed(
        config: BreakerConfig,
        now: Instant,
        observer: impl Fn(Transition) + Send + Sync + 'static,
    ) -> Self {
        Self::with_core(BreakerCore::new(config, now), Some(Box::new(observer)))
    }

    fn with_core(core: BreakerCore, observer: Option<Observer>) -> Self {
        let core = Mutex::new(core);
        Self {
            shared: Arc::new(Shared { core, observer }),
        }
    }

    /// Asks to send one request. The permit must be told the outcome; a permit dropped without one counts as cancelled.
    pub fn try_acquire(&self, now: Instant) -> Result<Permit, Rejected> {
        let ticket = self.step(|core| core.try_acquire(now))?;
        Ok(Permit::new(self.clone(), ticket))
    }

    /// The state as of the last request. An `Open` breaker whose time is up stays so until a request comes along to be the probe.
    pub fn state(&self) -> State {
        self.core().state()
    }

    fn record(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        self.step(|core| ((), core.record(ticket, outcome, now)));
    }

    fn cancel(&self, ticket: Ticket) {
        self.core().cancel(ticket);
    }

    /// Runs one step and tells the observer what changed.
    fn step<T>(&self, step: impl FnOnce(&mut BreakerCore) -> (T, Option<Transition>)) -> T {
        let mut core = self.core();
        let (answer, transition) = step(&mut core);
        if let (Some(transition), Some(observer)) = (transition, &self.shared.observer) {
            observer(transition);
        }
        answer
    }

    /// A panic under the lock can only come from the observer, after the step: the core is whole and is used on.
    fn core(&self) -> MutexGuard<'_, BreakerCore> {
        self.shared
            .core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
