//! The penstock program as a library: edge proxy, admin API and composition. The only crate that knows all others.
//!
//! # Layout, in the order of a request's life
//!
//! Start: [`cli`] (its [`help`]) → [`config`] → [`app`] builds every part once and binds the sockets; [`logging`] and [`signals`] serve `main.rs`.
//! One [`core`] per CPU runs its own [`server`] (accept, [`tls`], HTTP) and its own copy of the [`stack`], the list of layers,
//! which finds the [`route`] of an [`exchange`]. From there it goes by [`forward`] (or [`upgrade`]) to an [`upstream`], with
//! [`headers`] and [`body`] between the two sides, or to a handler. Refusals are [`problem`] documents.
//! Beside the path: [`metrics`], [`access_log`], [`admin`].
//!
//! [`services`] starts sales and payments, [`checkout`] joins them, [`demo`] shows all of it, [`sale_cli`], [`token_cli`], [`lottery_cli`] and
//! [`dead_letters_cli`] speak to the admin API through [`admin_client`], [`backup_cli`] takes and restores backups.

pub mod cli;

pub mod help;

pub mod config;

mod answer_text;
pub mod app;

pub mod logging;

pub mod signals;

pub mod core;

pub mod server;

mod linger;

mod preface;

pub mod tls;

pub mod stack;

pub mod exchange;

pub mod route;

pub mod target;

pub mod forward;

pub mod upgrade;

pub mod upstream;

pub mod headers;

pub mod body;

pub mod problem;

pub mod metrics;

pub mod access_log;

mod redact;

pub mod spool;

pub mod admin;

pub mod openapi;

pub mod services;

pub mod checkout;

#[cfg(feature = "demo")]
pub mod demo;

pub mod admin_client;
pub mod lottery_cli;
pub mod sale_cli;
pub mod token_cli;

pub mod backup_cli;
pub mod dead_letters_cli;
