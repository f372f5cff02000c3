//! Integration tests of the payments API, on SQLite and on a real PostgreSQL that the tests start themselves.

#![allow(clippy::unwrap_used)] // clippy knows test functions, but not the helpers they share

mod support;

mod api;
mod config;
mod idempotency;
mod ledger;
mod lists;
mod metrics;
mod migrate;
mod modules;
mod orders;
mod saga;
mod sdk;
mod start;
mod unknown;
