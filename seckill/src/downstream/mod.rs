//! Tells the shop what became of its orders: settled, paid, released, refused.
//!
//! The ledger writes each event in the transaction that decided it ([`crate::ledger`]); [`Deliverer`] takes them from there and
//! hands them to the one [`Sink`] that the configuration names, at least once and in order for each order: a POST to the shop
//! itself ([`HttpSink`]), RabbitMQ, NATS JetStream or Kafka.

mod event;
mod pause;
mod signature;
mod sink;

mod deliverer;
mod in_flight;

#[cfg(feature = "amqp")]
mod amqp;
mod http_client;
mod http_sink;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod options;

use std::{sync::Arc, time::Duration};

use crate::{backoff::Backoff, clock::WallClock};

#[cfg(feature = "amqp")]
pub use self::amqp::AmqpSink;
#[cfg(feature = "kafka")]
pub use self::kafka::KafkaSink;
#[cfg(feature = "nats")]
pub use self::nats::NatsSink;
pub use self::{
    deliverer::{Deliverer, DeliveryConfig, Round},
    event::Event,
    http_sink::HttpSink,
    options::{
        AmqpOptions, AmqpTarget, Credentials, HttpOptions, KafkaOptions, NatsLogin, NatsOptions,
        QueueType, SinkError, Target,
    },
    signature::{SIGNATURE_HEADER, sign},
    sink::{Delivery, DeliveryError, Sink, SinkTraits},
};

/// Events that one call hands to a broker. Enough that its round trip and its disk are shared, few enough to be had again soon.
#[cfg(any(feature = "amqp", feature = "nats", feature = "kafka"))]
const BROKER_BATCH: usize = 256;
/// How long a receiver that cannot be reached is left alone. A try each few seconds costs nobody anything, and one that is back
/// is found soon, also if it accepts connections before it answers on them.
const RECONNECT: Backoff = Backoff {
    first: Duration::from_millis(250),
    max: Duration::from_secs(5),
};

/// Makes the sink that the configuration names. Nothing is connected yet: a receiver that is down at start is waited for.
pub fn open(
    target: &Target,
    timeout: Duration,
    clock: WallClock,
) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(match target {
        Target::Http(options) => Arc::new(HttpSink::try_new(options, clock, timeout)?),
        #[cfg(feature = "amqp")]
        Target::Amqp(options) => Arc::new(AmqpSink::try_new(options.clone(), timeout)?),
        #[cfg(feature = "nats")]
        Target::Nats(options) => Arc::new(NatsSink::new(options.clone(), timeout)),
        #[cfg(feature = "kafka")]
        Target::Kafka(options) => Arc::new(KafkaSink::new(options.clone(), timeout)),
        #[allow(
            unreachable_patterns,
            reason = "with all features every target has its sink"
        )]
        other => return Err(SinkError::NotBuilt(other.feature())),
    })
}
