//! The penstock program as a library: edge proxy, admin API and composition. The only crate that knows all others.
//!
//! The folders are the floors of a house, ground first: each uses only those above it in this list. `docs/architecture.md` has a line for
//! every file, `docs/request-life.md` the way of a request through them.

#![warn(unreachable_pub)]
#![allow(
    missing_docs,
    reason = "only our own programs and tests use this library; docs stand where they teach"
)]

mod http;
pub mod meters;
pub mod tls;

mod snapshot;

pub mod config;

mod access_log;
mod connection;
pub mod upstream;

mod exchange;
mod limit;
mod route;

mod handlers;
mod layers;
mod proxy;

mod cores;

pub mod admin;

pub mod logging;
pub mod signals;

pub mod compose;

pub mod cli;

#[cfg(feature = "demo")]
pub mod demo;
