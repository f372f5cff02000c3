//! The integration tests of seckill, one binary: real servers, started by the tests themselves.

mod support;

mod stores;
mod redis_connect;
mod redis_errors;
mod redis_faults;
mod redis_cluster;

mod ledger;
mod settlement;
mod downstream;
mod embedded;
