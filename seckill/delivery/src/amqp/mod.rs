//! Publishes events to RabbitMQ (AMQP 0.9.1): persistent, mandatory, and taken for delivered only when the broker has confirmed
//! them. A batch is published in one go and its confirms are awaited together.

mod socket;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    PublisherConfirm,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::{AmqpOptions, AmqpTarget, Delivery, DeliveryError, Event, SinkError, broker::Broker};

/// AMQP's number for "write it to disk".
const PERSISTENT: u8 = 2;

/// A queue or an exchange of RabbitMQ.
pub(super) struct Amqp {
    options: AmqpOptions,
    tls: Option<Arc<ClientConfig>>,
}

/// One connection with one channel in confirm mode.
pub(super) struct Link {
    /// Closes when it is dropped, and with it the channel.
    connection: Connection,
    channel: Channel,
}

impl Amqp {
    pub(super) fn try_new(options: AmqpOptions) -> Result<Self, SinkError> {
        let tls = options.tls.as_ref().map(|tls| tls.client()).transpose()?;
        Ok(Self { options, tls })
    }

    async fn open(&self) -> lapin::Result<Link> {
        let properties =
            ConnectionProperties::default().with_connection_name("penstock downstream".into());
        let connection = socket::connect(&self.options, self.tls.clone(), properties).await?;
        let channel = connection.create_channel().await?;
        Ok(Link {
            connection,
            channel,
        })
    }

    async fn publish_one(&self, link: &Link, event: &Event) -> lapin::Result<PublisherConfirm> {
        let kind = event.name();
        let (exchange, routing_key) = match &self.options.target {
            // The default exchange routes to the queue of that name.
            AmqpTarget::Queue { name, .. } => ("", name.as_str()),
            AmqpTarget::Exchange(name) => (name.as_str(), kind.as_str()),
        };
        // An exchange that spreads over queues can hash this header: one order's events then stay in one queue.
        let mut headers = FieldTable::default();
        let order = AMQPValue::LongString(event.order.as_str().into());
        headers.insert("penstock-order".into(), order);
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(event.id.as_str().into())
            .with_type(kind.as_str().into())
            .with_timestamp(event.created_at_ms / 1000)
            .with_app_id("penstock".into())
            .with_headers(headers);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        link.channel
            .basic_publish(
                exchange.into(),
                routing_key.into(),
                options,
                &event.body,
                properties,
            )
            .await
    }
}

#[async_trait]
impl Broker for Amqp {
    type Link = Link;
    const NAME: &'static str = "rabbitmq";

    async fn connect(&self) -> Result<Link, String> {
        let link = self.open().await.map_err(|error| error.to_string())?;
        declare(&link.channel, &self.options.target).await?;
        let confirms = ConfirmSelectOptions::default();
        let selected = link.channel.confirm_select(confirms).await;
        selected.map_err(|error| error.to_string())?;
        Ok(link)
    }

    fn is_up(&self, link: &Link) -> bool {
        link.connection.status().connected() && link.channel.status().connected()
    }

    async fn publish(&self, link: &Link, events: &[Event], deadline: Instant) -> Vec<Delivery> {
        let mut confirms = Vec::with_capacity(events.len());
        let mut failed: Option<DeliveryError> = None;
        for event in events {
            // Past the first failure nothing more is sent, so nothing more counts as tried.
            if let Some(error) = &failed {
                confirms.push(Err(DeliveryError::Unreachable(error.to_string())));
                continue;
            }
            let published = match timeout_at(deadline, self.publish_one(link, event)).await {
                Ok(Ok(confirm)) => Ok(confirm),
                Ok(Err(error)) => Err(DeliveryError::Broken(error.to_string())),
                Err(_) => Err(DeliveryError::Timeout),
            };
            failed = published.as_ref().err().cloned();
            confirms.push(published);
        }

        let mut returned = HashMap::new();
        let mut outcomes = Vec::with_capacity(events.len());
        for confirm in confirms {
            outcomes.push(match confirm {
                Err(error) => Err(error),
                Ok(confirm) => match timeout_at(deadline, confirm).await {
                    Err(_) => Err(DeliveryError::Timeout),
                    Ok(Err(error)) => Err(DeliveryError::Broken(error.to_string())),
                    Ok(Ok(confirmation)) => {
                        let is_ack = confirmation.is_ack();
                        let refused = "not confirmed by the broker (nack): is the queue full?";
                        note_return(&mut returned, confirmation);
                        is_ack
                            .then_some(())
                            .ok_or_else(|| DeliveryError::Refused(refused.to_owned()))
                    }
                },
            });
        }
        // What could not be routed is confirmed too, and its return is not always handed out with its own confirm.
        for (event, outcome) in events.iter().zip(&mut outcomes) {
            if let Some(reason) = returned.remove(&event.id) {
                *outcome = Err(DeliveryError::Refused(reason));
            }
        }
        outcomes
    }
}

fn note_return(returned: &mut HashMap<String, String>, confirmation: Confirmation) {
    let Some(message) = confirmation.take_message() else {
        return;
    };
    if let Some(id) = message.delivery.properties.message_id() {
        let (code, text) = (message.reply_code, message.reply_text.as_str());
        let reason = format!("returned, no queue takes it: {code} {text}");
        returned.insert(id.as_str().to_owned(), reason);
    }
}

/// Makes sure that what is published is kept: the queue is durable, or the exchange is there.
async fn declare(channel: &Channel, target: &AmqpTarget) -> Result<(), String> {
    match target {
        AmqpTarget::Queue { name, kind } => {
            let mut arguments = FieldTable::default();
            let queue_type = AMQPValue::LongString(kind.as_str().into());
            arguments.insert("x-queue-type".into(), queue_type);
            let declared = channel
                .queue_declare(
                    name.as_str().into(),
                    QueueDeclareOptions::durable(),
                    arguments,
                )
                .await;
            declared.map(drop).map_err(|error| {
                let kind = kind.as_str();
                format!("the queue {name:?} cannot be used as a durable {kind} queue: {error}")
            })
        }
        AmqpTarget::Exchange(name) => {
            let options = ExchangeDeclareOptions {
                passive: true,
                ..ExchangeDeclareOptions::default()
            };
            channel
                .exchange_declare(
                    name.as_str().into(),
                    ExchangeKind::Topic,
                    options,
                    FieldTable::default(),
                )
                .await
                .map_err(|error| format!("the exchange {name:?} cannot be used: {error}"))
        }
    }
}
