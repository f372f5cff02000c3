//! What a receiver of events has to do, and how it can fail.

use std::{num::NonZeroUsize, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::Event;

/// Why a sink cannot be made. The configuration is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The program was built without this sink.
    #[error("this program was built without the cargo feature {0:?} that its downstream url needs")]
    NotBuilt(&'static str),
    /// TLS cannot be had.
    #[error("downstream: {0}")]
    Tls(String),
}

/// Why an event was not taken. It comes again, until it has been tried often enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The shop answered with something other than success; `retry_after` if it said when to come back.
    #[error("the shop answered {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Not before this time, if the answer said so.
        retry_after: Option<Duration>,
    },
    /// The receiver took the event and gave it back: no queue, no stream, no room. Its operator must look.
    #[error("the receiver refused it: {0}")]
    Refused(String),
    /// The connection broke off when the event was on its way; the receiver may have it.
    #[error("the connection broke off: {0}")]
    Broken(String),
    /// No answer in time; the receiver may have it.
    #[error("no answer in time")]
    Timeout,
    /// There is no connection, so nothing was sent. The event is not to blame, and this try does not count.
    #[error("not reachable: {0}")]
    Unreachable(String),
}

impl DeliveryError {
    /// Whether the event was on its way, so that this try counts.
    pub fn is_tried(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }

    /// How long the receiver asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What became of one event. `Ok` means that the receiver has it for good.
pub type Delivery = Result<(), DeliveryError>;

/// How much a sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkTraits {
    /// Calls of [`Sink::deliver`] at once.
    pub calls: NonZeroUsize,
    /// Events in one call.
    pub batch: NonZeroUsize,
    /// Longest time that one call takes.
    pub patience: Duration,
}

/// A place that takes events. The same event may come again and is recognised by its id.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// How much it takes at once.
    fn traits(&self) -> SinkTraits;

    /// Asked before each call: may it begin now, and if not, when should it be asked again? Here a sink says that it has a
    /// rate limit, that its receiver named a time to come back (`Retry-After`), or that the connection is down.
    fn admit(&self, now: Instant) -> Result<(), Instant>;

    /// Hands over events, of which no two are of one order. One outcome each, in their order, within [`SinkTraits::patience`].
    async fn deliver(&self, events: &[Event]) -> Vec<Delivery>;
}
