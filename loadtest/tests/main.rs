//! One binary for all integration tests: the engine against a small server of its own, the plan's properties, the program.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod carts;
mod cli;
mod engine;
mod oracle;
mod plan;
mod reconcile;
mod scenarios;
mod schema;
mod support;
