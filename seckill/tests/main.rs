//! The integration tests of seckill, one binary: real servers, started by the tests themselves.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod support;

mod redis_retention;

mod backup;
mod carts;
mod conservation;
mod dead_events;
mod dead_letters;
mod downstream;

mod ledger;
mod ledger_checkins;
mod ledger_checkout;
mod ledger_clock;
mod ledger_durability;
mod ledger_epochs;
mod ledger_history;
mod ledger_lists;
mod ledger_schedule;
mod ledger_settle;
mod lottery;
mod order_versions;
mod order_watch;
mod over;
mod over_many;
mod rebuild;
mod rebuild_elsewhere;
mod rebuild_letters;
mod reconcile_repair;
mod rest;
mod segments;
mod segments_books;
mod segments_upkeep;
mod settlement;
mod store_sync;
mod transfers;
