//! The integration tests of seckill, one binary: real servers, started by the tests themselves.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod support;

mod redis_cluster;
mod redis_connect;
mod redis_durability;
mod redis_errors;
mod redis_faults;
mod redis_mutations;
mod redis_recovery;
mod redis_retention;
mod stores;

mod downstream;
mod embedded;
mod ledger;
mod ledger_checkout;
mod ledger_history;
mod ledger_settle;
mod settlement;
mod settlement_effects;
