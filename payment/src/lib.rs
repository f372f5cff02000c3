//! Payment intents, channels and the double-entry ledger, on Stripe's wire.
//!
//! [`start`] builds it all. A shop's Stripe SDK reaches it through [`Payments::router`]; behind that, one saga runs per payment:
//!
//! ```text
//! wire/ ─► saga/confirm.rs
//!             tx 1   idempotency key · order hold (participant) · charge row · pending transfer · intent → processing · event
//!             -      the channel is asked, no transaction open and no connection held
//!             tx 2   order paid · transfer posted · intent → succeeded · event · stored answer      (or voided, or left unknown)
//! saga/resolve.rs: whatever tx 2 never decided is asked of its channel again until it is
//! ```
//!
//! The crate knows nothing of sales: what a payment pays for is a [`Participant`], whose calls join these transactions, so that an
//! order is paid exactly when its money is posted. Wall-clock time and randomness enter as arguments.
//!
//! A module uses only modules above it in the list below.

#![warn(unreachable_pub)]

pub mod card_number;
pub mod money;
mod secret;

mod ids;

mod db;

pub mod ledger;

mod idempotency;

mod metrics;

pub mod channels;
pub mod participant;

pub mod config;

mod intents;

mod charges;
mod events;
mod refunds;

mod saga;

mod books;
mod wire;

mod start;

pub use self::{
    books::Books,
    channels::RegistryError,
    config::Config,
    db::{SCHEMA, Schema},
    ledger::Finding,
    money::{Currency, Money},
    participant::{Confirm, Hold, Participant, Readiness},
    saga::Clock,
    secret::{ApiKey, Secret},
    start::{Payments, Reader, Resolver, Setup, StartError, start, start_with},
};
