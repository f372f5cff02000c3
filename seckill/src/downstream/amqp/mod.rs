//! Publishes events to RabbitMQ (AMQP 0.9.1): persistent, mandatory, and taken for delivered only when the broker has confirmed
//! them. A batch is published in one go and its confirms are awaited together.

mod link;
mod wire;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use self::link::Link;
use super::{
    AmqpOptions, Delivery, DeliveryError, RECONNECT, Sink, SinkError, SinkTraits, pause::Pause,
};
use crate::ledger::OutboxEvent;

/// A queue or an exchange of RabbitMQ.
pub struct AmqpSink {
    options: AmqpOptions,
    /// For `amqps`.
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
    state: Mutex<State>,
}

/// A `std` lock: the link is taken out for a call and put back.
struct State {
    link: Option<Link>,
    pause: Pause,
}

impl AmqpSink {
    /// Reads the certificates that `amqps` trusts. Connects with the first event.
    pub fn try_new(options: AmqpOptions, timeout: Duration) -> Result<Self, SinkError> {
        let tls = options
            .tls
            .then(|| wire::trust(options.ca_file.as_deref()))
            .transpose()?;
        Ok(Self {
            options,
            tls,
            timeout,
            state: Mutex::new(State {
                link: None,
                pause: Pause::new(RECONNECT),
            }),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The link of the call before, or a new one.
    async fn link(&self, deadline: Instant) -> Result<Link, DeliveryError> {
        let kept = self.state().link.take().filter(Link::is_up);
        if let Some(link) = kept {
            return Ok(link);
        }
        let opened = timeout_at(deadline, Link::open(&self.options, self.tls.clone())).await;
        let why = match opened {
            Ok(Ok(link)) => {
                info!(host = self.options.host, "connected to rabbitmq");
                return Ok(link);
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        warn!(host = self.options.host, error = %why, "rabbitmq cannot be used, trying again later");
        Err(DeliveryError::Unreachable(why))
    }
}

#[async_trait]
impl Sink for AmqpSink {
    fn traits(&self) -> SinkTraits {
        // Connecting and publishing.
        SinkTraits::of_broker(2 * self.timeout)
    }

    fn admit(&self, now: Instant) -> Result<(), Instant> {
        self.state().pause.ends(now).map_or(Ok(()), Err)
    }

    async fn deliver(&self, events: &[OutboxEvent]) -> Vec<Delivery> {
        let link = match self.link(Instant::now() + self.timeout).await {
            Ok(link) => link,
            Err(error) => {
                self.state().pause.failed(Instant::now(), rand::random());
                return vec![Err(error); events.len()];
            }
        };
        let outcomes = link.publish(events, Instant::now() + self.timeout).await;
        let mut state = self.state();
        // A confirm that did not come may still be on its way, and would be taken for one of the next batch's.
        let is_sound = outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(()) | Err(DeliveryError::Refused(_))));
        if is_sound && link.is_up() {
            state.link = Some(link);
        }
        if is_sound || outcomes.iter().any(Result::is_ok) {
            state.pause.worked();
        } else {
            state.pause.failed(Instant::now(), rand::random());
        }
        outcomes
    }
}
