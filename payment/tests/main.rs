//! Integration tests of the payments API, on SQLite and on a real PostgreSQL that the tests start themselves.

mod support;

mod api;
mod config;
mod idempotency;
mod ledger;
mod lists;
mod metrics;
mod orders;
mod saga;
mod unknown;
