//! Token bucket and circuit breaker: pure cores with tower layers around them.
//!
//! Both sit early on a request's path: [`rate`] decides behind the choice of the route whether a client may come in at all, [`breaker`]
//! decides before each attempt whether an endpoint may be asked. A refusal is always immediate; nothing here queues or sleeps.
//!
//! # Who uses what
//!
//! The gateway's data plane calls the decisions themselves, [`rate::RateLimiter::check`] and [`breaker::Breaker::try_acquire`]: its stack is no
//! tower `Service`, every route brings its own list of limits, and the breaker to ask is known only when an endpoint has been chosen. Its admin
//! listener uses [`rate::admin_guard`]. [`rate::RateLimitLayer`] and [`breaker::BreakerLayer`] are the same decisions for
//! what *is* a `Service`, an axum router or a client; nothing in the Penstock program is wrapped in them.
//! The crate imports no other crate of Penstock, so that every one of them may use it.

pub mod rate;

pub mod breaker;
