//! Publishes events to a stream of NATS JetStream. `Nats-Msg-Id` lets the server drop repetitions, `Nats-Expected-Stream` keeps
//! another stream from taking them by mistake, and an event is delivered only when the stream has acknowledged it.

use std::{io, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, ServerAddr,
    jetstream::{
        Context,
        context::{
            ContextBuilder, GetStreamErrorKind, PublishAckFuture, PublishError, PublishErrorKind,
        },
        message::PublishMessage,
    },
};
use async_trait::async_trait;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::{
    Delivery, DeliveryError, Event, EventKind, NatsLogin, NatsOptions, SinkError,
    broker::{BATCH, Broker},
};

/// Most events come again within this time after a fault. A stream that remembers ids for less lets some of them in twice.
const USEFUL_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A stream of NATS JetStream.
pub(super) struct Nats {
    options: NatsOptions,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

impl Nats {
    pub(super) fn try_new(options: NatsOptions, timeout: Duration) -> Result<Self, SinkError> {
        let tls = options.tls.as_ref().map(|tls| tls.client()).transpose()?;
        Ok(Self {
            options,
            tls,
            timeout,
        })
    }

    async fn log_in(&self) -> io::Result<Client> {
        let mut options = ConnectOptions::new()
            .name("penstock downstream")
            .connection_timeout(self.timeout)
            // This sink reconnects by itself, so that nothing is sent late from a buffer that it has given up on.
            .max_reconnects(1)
            .ping_interval(Duration::from_secs(10));
        options = match &self.options.login {
            NatsLogin::Anonymous => options,
            NatsLogin::Password(user) => {
                options.user_and_password(user.username.clone(), user.password.clone())
            }
            NatsLogin::Token(token) => options.token(token.clone()),
            #[cfg(feature = "nats-creds")]
            NatsLogin::Creds(text) => options.credentials(text)?,
            #[cfg(not(feature = "nats-creds"))]
            NatsLogin::Creds(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(ClientConfig::clone(tls));
        }
        let servers = self
            .options
            .servers
            .iter()
            .map(|server| server.parse())
            .collect::<io::Result<Vec<ServerAddr>>>()?;
        options.connect(servers).await.map_err(io::Error::other)
    }

    /// Sends one event; the future is the stream's acknowledgement.
    async fn send(
        &self,
        context: &Context,
        event: &Event,
    ) -> Result<PublishAckFuture, PublishError> {
        let message = PublishMessage::build()
            .payload(event.body.clone())
            .message_id(&event.id)
            .expected_stream(&self.options.stream)
            .header("content-type", "application/json")
            .header("penstock-order", event.order.as_str());
        let subject = subject(&self.options.subject, event.kind);
        context.send_publish(subject, message).await
    }
}

#[async_trait]
impl Broker for Nats {
    type Link = Context;
    const NAME: &'static str = "nats";

    async fn connect(&self) -> Result<Context, String> {
        let client = self.log_in().await.map_err(|error| error.to_string())?;
        let context = ContextBuilder::new()
            .timeout(self.timeout)
            .ack_timeout(self.timeout)
            .max_ack_inflight(2 * BATCH)
            .build(client);
        let name = &self.options.stream;
        let stream = context
            .get_stream(name)
            .await
            .map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(error) => format!(
                    "the stream {name:?} cannot be used ({error}); create it with the subjects {}.>",
                    self.options.subject
                ),
                _ => format!("the stream {name:?} cannot be read: {error} (is JetStream enabled?)"),
            })?;
        let window = stream.cached_info().config.duplicate_window;
        if window < USEFUL_DUPLICATE_WINDOW {
            warn!(
                stream = name,
                ?window,
                "the stream forgets message ids soon; its consumers must recognise repetitions themselves"
            );
        }
        Ok(context)
    }

    /// Its client says nothing better than the next publication does.
    fn is_up(&self, _: &Context) -> bool {
        true
    }

    async fn publish(&self, link: &Context, events: &[Event], deadline: Instant) -> Vec<Delivery> {
        let mut acks = Vec::with_capacity(events.len());
        let mut is_down = None;
        for event in events {
            // Past the first failure nothing more is sent, so nothing more counts as tried.
            if let Some(why) = &is_down {
                acks.push(Err(DeliveryError::Unreachable(String::clone(why))));
                continue;
            }
            let sent = match timeout_at(deadline, self.send(link, event)).await {
                Ok(Err(error)) if error.kind() == PublishErrorKind::Other => {
                    // The client has ended, after its one attempt to reconnect. Nothing was sent.
                    Err(DeliveryError::Unreachable(error.to_string()))
                }
                Ok(sent) => sent.map_err(|error| failure(&error)),
                Err(_) => Err(DeliveryError::Timeout),
            };
            if let Err(error) = &sent
                && !matches!(error, DeliveryError::Refused(_))
            {
                is_down = Some(error.to_string());
            }
            acks.push(sent);
        }
        let mut outcomes = Vec::with_capacity(events.len());
        for ack in acks {
            outcomes.push(match ack {
                Err(error) => Err(error),
                Ok(ack) => match timeout_at(deadline, ack.into_future()).await {
                    Err(_) => Err(DeliveryError::Timeout),
                    // A duplicate is what the stream has already: as good as taken now.
                    Ok(acknowledged) => acknowledged.map(drop).map_err(|error| failure(&error)),
                },
            });
        }
        outcomes
    }
}

fn subject(prefix: &str, kind: EventKind) -> String {
    format!("{prefix}.{}", kind.as_str())
}

fn failure(error: &PublishError) -> DeliveryError {
    match error.kind() {
        PublishErrorKind::TimedOut => DeliveryError::Timeout,
        PublishErrorKind::BrokenPipe => DeliveryError::Broken(error.to_string()),
        PublishErrorKind::StreamNotFound => {
            DeliveryError::Refused("no stream takes this subject".to_owned())
        }
        _ => DeliveryError::Refused(error.to_string()),
    }
}
