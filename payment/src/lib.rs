//! Payment intents, channels and the double-entry ledger, on Stripe's wire.
//!
//! A shop's Stripe SDK reaches this crate through [`router`]; behind it [`PaymentService`] runs one saga per payment:
//!
//! ```text
//! api.rs ─► intent/service.rs ─► intent/confirm.rs
//!             tx 1   idempotency key · order hold (participant) · charge row · pending transfer · intent → processing · event
//!             -      the channel is asked, no transaction open and no connection held
//!             tx 2   order paid · transfer posted · intent → succeeded · event · stored answer      (or voided, or left unknown)
//! intent/resolve.rs: whatever tx 2 never decided is asked of the channel again until it is
//! ```
//!
//! The crate knows nothing of sales: what a payment pays for is a [`Participant`], whose calls join these transactions, so that an
//! order is paid exactly when its money is posted. Wall-clock time and randomness enter as arguments of [`PaymentService::new`].

pub mod config;
pub mod money;

pub mod intent;
pub mod ledger;

mod books;

pub mod channel;
pub mod participant;

mod api;
mod auth;
pub mod card_number;
mod error;
mod events;
mod form;
mod idempotency;
mod ids;
mod metrics;
mod params;
mod schema;
mod service;
mod sql;

pub use self::{
    api::router,
    books::Books,
    config::{ApiKey, Config, RawConfig, Secret},
    error::PaymentError,
    ledger::Finding,
    money::{Currency, Money},
    participant::{Confirm, Hold, Participant, Readiness},
    schema::migrate,
    service::{Clock, PaymentService},
};
