//! Helpers of the integration tests.

#[cfg(any(feature = "amqp", feature = "nats", feature = "kafka"))]
pub mod brokers;
pub mod memory_outbox;
pub mod outbox;
