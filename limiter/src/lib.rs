//! Token bucket and circuit breaker: pure cores with tower layers around them.
//!
//! Both sit early on a request's path: [`rate`] decides in front of routing whether a client may come in at all, [`breaker`]
//! decides behind it whether an endpoint may be asked. A refusal is always immediate; nothing here queues or sleeps.
//! The crate imports no other crate of Penstock, so that every one of them may use it.

pub mod rate;

pub mod breaker;
