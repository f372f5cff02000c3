//! Publishes events to a stream of NATS JetStream. `Nats-Msg-Id` lets the server drop repetitions, `Nats-Expected-Stream` keeps
//! another stream from taking them by mistake, and an event is delivered only when the stream has acknowledged it.

use std::{
    io,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

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
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::{
    BROKER_BATCH, Delivery, DeliveryError, Event, NatsLogin, NatsOptions, RECONNECT, Sink,
    SinkTraits, pause::Pause,
};
use crate::ledger::{EventKind, OutboxEvent};

/// Most events come again within this time after a fault. A stream that remembers ids for less lets some of them in twice.
const USEFUL_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A stream of NATS JetStream.
pub struct NatsSink {
    options: NatsOptions,
    timeout: Duration,
    state: Mutex<State>,
}

/// A `std` lock: the context is taken out for a call and put back.
struct State {
    context: Option<Context>,
    pause: Pause,
}

impl NatsSink {
    /// Connects with the first event.
    pub fn new(options: NatsOptions, timeout: Duration) -> Self {
        Self {
            options,
            timeout,
            state: Mutex::new(State {
                context: None,
                pause: Pause::new(RECONNECT),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The context of the call before, or a new one.
    async fn context(&self, deadline: Instant) -> Result<Context, DeliveryError> {
        let kept = self.state().context.take();
        if let Some(context) = kept {
            return Ok(context);
        }
        let why = match timeout_at(deadline, self.open()).await {
            Ok(Ok(context)) => {
                info!(stream = self.options.stream, "connected to nats");
                return Ok(context);
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        warn!(stream = self.options.stream, error = %why, "nats cannot be used, trying again later");
        Err(DeliveryError::Unreachable(why))
    }

    /// Connects, logs in, and makes sure of the stream.
    async fn open(&self) -> Result<Context, String> {
        let client = self.connect().await.map_err(|error| error.to_string())?;
        let context = ContextBuilder::new()
            .timeout(self.timeout)
            .ack_timeout(self.timeout)
            .max_ack_inflight(2 * BROKER_BATCH)
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

    async fn connect(&self) -> io::Result<Client> {
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
        if let Some(path) = &self.options.ca_file {
            options = options.add_root_certificates(path.clone());
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
        event: &OutboxEvent,
    ) -> Result<PublishAckFuture, PublishError> {
        let message = PublishMessage::build()
            .payload(Event::new(event).body().into())
            .message_id(event.id())
            .expected_stream(&self.options.stream)
            .header("content-type", "application/json")
            .header("penstock-order", event.order.order.to_string());
        let subject = subject(&self.options.subject, event.kind);
        context.send_publish(subject, message).await
    }

    async fn publish(
        &self,
        context: &Context,
        events: &[OutboxEvent],
        deadline: Instant,
    ) -> Vec<Delivery> {
        let mut acks = Vec::with_capacity(events.len());
        let mut is_down = None;
        for event in events {
            // Past the first failure nothing more is sent, so nothing more counts as tried.
            if let Some(why) = &is_down {
                acks.push(Err(DeliveryError::Unreachable(String::clone(why))));
                continue;
            }
            let sent = match timeout_at(deadline, self.send(context, event)).await {
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

#[async_trait]
impl Sink for NatsSink {
    fn traits(&self) -> SinkTraits {
        // Connecting and publishing.
        SinkTraits::of_broker(2 * self.timeout)
    }

    fn admit(&self, now: Instant) -> Result<(), Instant> {
        self.state().pause.ends(now).map_or(Ok(()), Err)
    }

    async fn deliver(&self, events: &[OutboxEvent]) -> Vec<Delivery> {
        let context = match self.context(Instant::now() + self.timeout).await {
            Ok(context) => context,
            Err(error) => {
                self.state().pause.failed(Instant::now(), rand::random());
                return vec![Err(error); events.len()];
            }
        };
        let deadline = Instant::now() + self.timeout;
        let outcomes = self.publish(&context, events, deadline).await;
        let mut state = self.state();
        // After a timeout or a break the connection is given up with all that it may still hold in its buffers.
        let is_sound = outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(()) | Err(DeliveryError::Refused(_))));
        if is_sound {
            state.context = Some(context);
        }
        if is_sound || outcomes.iter().any(Result::is_ok) {
            state.pause.worked();
        } else {
            state.pause.failed(Instant::now(), rand::random());
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
