//! The gateway over real sockets: a client on one side, an origin on the other, every port free and every file temporary.
//!
//! `support` starts both; the other modules are named by what they ask of the gateway.

// A failed step of a test is a failed test; clippy knows this of `#[test]` functions only, not of their helpers.
#![allow(clippy::unwrap_used)]

mod support;

mod routing;

mod protocol;

mod tunnel;

mod unix_socket;

mod forwarding;

mod http;

mod signals;

mod openapi;

mod refusing;

mod failing;

mod greedy;

mod draining;

mod reloading;

mod operating;

mod examples;

mod telling;

mod dead_letters;

mod process;

mod crash;

mod backup;

mod disk_full;

mod starting;

#[path = "chaos/bench/postgres.rs"]
#[allow(dead_code, reason = "the chaos runs do more to it")]
mod postgres;
