//! Token bucket, circuit breaker and backoff: pure cores and the thin shells that make them usable by all cores of a process.
//!
//! Both sit early on a request's path: [`rate`] decides behind the choice of the route whether a client may come in at all, [`breaker`]
//! decides before each attempt whether an endpoint may be asked. A refusal is always immediate; nothing here queues or sleeps.
//!
//! The gateway's data plane calls the decisions themselves, [`rate::RateLimiter::check`] and [`breaker::Breaker::try_acquire`]: its layers are
//! no tower `Service`, every route brings its own list of limits, and the breaker to ask is known only when an endpoint has been chosen. Its
//! admin listener is wrapped in [`rate::admin_guard`]. [`backoff`] spaces tries that failed, [`troubles`] the log lines about them. The crate imports no other crate of Penstock, so that every one of them may use it.

#![warn(unreachable_pub)]

pub mod rate;

pub mod breaker;

pub mod backoff;

pub mod troubles;
