//! Publishes events to a topic of Kafka: acknowledged by all replicas in sync, written once however often the client repeats
//! itself, and keyed by the order, so that the events of one order stay in one partition and in their order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::{
    Delivery, DeliveryError, Event, KafkaOptions,
    broker::{BATCH, Broker},
};

/// A topic of Kafka.
pub(super) struct Kafka {
    options: KafkaOptions,
    timeout: Duration,
}

pub(super) struct Link {
    producer: FutureProducer<Watch>,
    watch: Watch,
}

/// Notes what the client says about the cluster as a whole.
#[derive(Clone, Default)]
struct Watch {
    all_brokers_down: Arc<AtomicBool>,
}

impl ClientContext for Watch {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.all_brokers_down.store(true, Ordering::Relaxed);
        }
        warn!(%error, reason, "kafka client");
    }
}

impl Kafka {
    pub(super) fn new(options: KafkaOptions, timeout: Duration) -> Self {
        Self { options, timeout }
    }

    fn config(&self) -> ClientConfig {
        let timeout_ms = self.timeout.as_millis().to_string();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.options.brokers)
            .set("client.id", "penstock")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", &timeout_ms)
            // A batch is handed over at once; a few milliseconds let it leave as one request for each partition.
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", (4 * BATCH).to_string())
            .set("reconnect.backoff.max.ms", "2000")
            .set("allow.auto.create.topics", "false");
        if let Some(user) = &self.options.credentials {
            config
                .set("security.protocol", "sasl_plaintext")
                .set("sasl.mechanism", "PLAIN")
                .set("sasl.username", &user.username)
                .set("sasl.password", &user.password);
        }
        config
    }

    fn send(
        producer: &FutureProducer<Watch>,
        topic: &str,
        event: &Event,
    ) -> Result<DeliveryFuture, KafkaError> {
        let kind = event.name();
        let header = |key, value| Header {
            key,
            value: Some(value),
        };
        let headers = OwnedHeaders::new()
            .insert(header("penstock-event-id", event.id.as_str()))
            .insert(header("penstock-event-type", kind.as_str()))
            .insert(header("content-type", "application/json"));
        let record = FutureRecord::to(topic)
            .key(&event.order)
            .payload(&event.body[..])
            .timestamp(i64::try_from(event.created_at_ms).unwrap_or(i64::MAX))
            .headers(headers);
        producer.send_result(record).map_err(|(error, _)| error)
    }

    /// What a failure means, given whether the client lost every broker meanwhile.
    fn failure(error: &KafkaError, all_down: bool) -> DeliveryError {
        match error.rdkafka_error_code() {
            // It waited for a broker until it gave up.
            Some(RDKafkaErrorCode::MessageTimedOut) if all_down => {
                DeliveryError::Unreachable("no broker answers".to_owned())
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => DeliveryError::Timeout,
            Some(RDKafkaErrorCode::QueueFull) => {
                DeliveryError::Unreachable("the client's queue is full".to_owned())
            }
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) | None => {
                DeliveryError::Broken(error.to_string())
            }
            Some(_) => DeliveryError::Refused(error.to_string()),
        }
    }
}

#[async_trait]
impl Broker for Kafka {
    type Link = Link;
    const NAME: &'static str = "kafka";
    /// Its client reconnects by itself and knows each message's own report.
    const OUTLIVES_FAILURES: bool = true;
    /// It looks for messages that timed out once a second, and only its word tells whether they were sent.
    const GRACE: Duration = Duration::from_secs(2);

    /// Connects in the background, with the first message.
    async fn connect(&self) -> Result<Link, String> {
        let watch = Watch::default();
        let producer = self.config().create_with_context(watch.clone());
        let producer = producer.map_err(|error: KafkaError| error.to_string())?;
        Ok(Link { producer, watch })
    }

    /// An idempotent producer that can no longer vouch for "once" says so and is of no use any more.
    fn is_up(&self, link: &Link) -> bool {
        let fatal = link.producer.client().fatal_error();
        if let Some((code, reason)) = &fatal {
            warn!(%code, reason, "kafka producer is given up, the next one starts afresh");
        }
        fatal.is_none()
    }

    async fn publish(&self, link: &Link, events: &[Event], deadline: Instant) -> Vec<Delivery> {
        let Link { producer, watch } = link;
        watch.all_brokers_down.store(false, Ordering::Relaxed);
        let sent: Vec<_> = events
            .iter()
            .map(|event| Self::send(producer, &self.options.topic, event))
            .collect();
        let mut outcomes = Vec::with_capacity(events.len());
        for sent in sent {
            let outcome = match sent {
                Err(error) => Err(error),
                Ok(report) => match timeout_at(deadline, report).await {
                    Ok(Ok(delivered)) => delivered.map(drop).map_err(|(error, _)| error),
                    Ok(Err(_)) => Err(KafkaError::Canceled),
                    Err(_) => {
                        outcomes.push(Err(DeliveryError::Timeout));
                        continue;
                    }
                },
            };
            let is_down = watch.all_brokers_down.load(Ordering::Relaxed);
            outcomes.push(outcome.map_err(|error| Self::failure(&error, is_down)));
        }
        outcomes
    }
}
