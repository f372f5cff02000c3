//! What the tests need around the crate.

pub mod bench;
pub mod floor;
pub mod ledger;
pub mod memory_store;
pub mod node;
pub mod postgres;
pub mod world;
