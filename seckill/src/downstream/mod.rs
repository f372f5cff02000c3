//! Tells the shop what became of its orders: settled, paid, released, refused.
//!
//! The ledger writes each event in the transaction that decided it ([`crate::ledger`]); [`Deliverer`] takes them from there and
//! hands them to a [`Sink`], at least once and in order for each order. The one sink today is [`HttpSink`].

mod deliverer;
mod event;
mod http_sink;
mod signature;

use async_trait::async_trait;

use crate::ledger::OutboxEvent;

pub use self::{
    deliverer::{Deliverer, DeliveryConfig},
    event::Event,
    http_sink::{HttpSink, SinkError},
    signature::{SIGNATURE_HEADER, sign},
};

/// Why an event was not taken. It is tried again, until it has been tried often enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The shop answered with something other than success.
    #[error("the shop answered {0}")]
    Status(u16),
    /// The shop could not be reached or broke off.
    #[error("the shop could not be reached: {0}")]
    Unreachable(String),
    /// The shop did not answer in time.
    #[error("the shop did not answer in time")]
    Timeout,
}

/// A place that takes events. `Ok` means that it has the event for good; the same event may come again and is recognised by its id.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Hands over one event.
    async fn deliver(&self, event: &OutboxEvent) -> Result<(), DeliveryError>;
}
