//! Tells the shop what became of its orders: settled, paid, released, refused.
//!
//! [`Deliverer`] takes events from an [`Outbox`] and hands them to the one [`Sink`] that the configuration names, at least once and in
//! order for each order: a POST to the shop itself, RabbitMQ, NATS JetStream or Kafka. What an order is, and where the outbox is kept, the
//! crate does not know.

#![warn(unreachable_pub)]

mod event;
mod outbox;
mod pause;
mod signature;
mod sink;
mod tls;

mod options;

mod deliverer;
mod in_flight;

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(any(feature = "amqp", feature = "nats", feature = "kafka"))]
mod broker;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod webhook;

use std::{sync::Arc, time::Duration};

use limiter::backoff::Backoff;

pub use self::{
    deliverer::{Deliverer, DeliveryConfig, Round},
    event::{Event, EventKind},
    options::{
        AmqpOptions, AmqpTarget, Credentials, DownstreamConfig, KafkaOptions, NatsLogin,
        NatsOptions, QueueType, Receiver, WebhookOptions,
    },
    outbox::Outbox,
    signature::{SIGNATURE_HEADER, sign},
    sink::{Delivery, DeliveryError, Sink, SinkError, SinkTraits},
    tls::Tls,
};

/// Reads unix milliseconds: the crate never asks the system itself, so tests decide what time it is.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How long a receiver that cannot be reached is left alone. A try each few seconds costs little, and one that is back
/// is found soon, also if it accepts connections before it answers on them.
const RECONNECT: Backoff = Backoff {
    first: Duration::from_millis(250),
    max: Duration::from_secs(5),
};

/// Makes the sink that the configuration names. Nothing is connected yet: a receiver that is down at start is waited for.
pub fn open(config: &DownstreamConfig, clock: WallClock) -> Result<Arc<dyn Sink>, SinkError> {
    let timeout = config.timeout;
    if let Some(feature) = config.receiver.missing_feature() {
        return Err(SinkError::NotBuilt(feature));
    }
    Ok(match &config.receiver {
        Receiver::Webhook(options) => {
            Arc::new(webhook::WebhookSink::try_new(options, clock, timeout)?)
        }
        #[cfg(feature = "amqp")]
        Receiver::Amqp(options) => broker::sink(amqp::Amqp::try_new(options.clone())?, timeout),
        #[cfg(feature = "nats")]
        Receiver::Nats(options) => {
            broker::sink(nats::Nats::try_new(options.clone(), timeout)?, timeout)
        }
        #[cfg(feature = "kafka")]
        Receiver::Kafka(options) => {
            broker::sink(kafka::Kafka::new(options.clone(), timeout), timeout)
        }
        #[allow(
            unreachable_patterns,
            reason = "with all features every receiver has its sink"
        )]
        other => unreachable!("{other:?} has no sink, and no feature is missing"),
    })
}
