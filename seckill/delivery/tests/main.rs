//! The integration tests of delivery, one binary: real receivers, started by the tests themselves.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod support;

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod webhook;
mod webhook_tls;
