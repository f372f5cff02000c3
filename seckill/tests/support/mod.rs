//! What the tests need around the crate.

pub mod bench;
#[cfg(any(feature = "amqp", feature = "nats"))]
pub mod brokers;
pub mod floor;
pub mod ledger;
pub mod memory_store;
pub mod node;
pub mod outbox;
pub mod postgres;
pub mod world;
