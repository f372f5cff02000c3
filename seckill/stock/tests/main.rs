//! The integration tests of the stock stores, one binary: real servers, started by the tests themselves.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod embedded;
mod embedded_clock;
mod embedded_disk;
mod embedded_snapshots;
mod redis_cluster;
mod redis_connect;
mod redis_durability;
mod redis_errors;
mod redis_faults;
mod redis_losses;
mod redis_mutations;
mod redis_rebuild;
mod redis_retention;
mod stores;
