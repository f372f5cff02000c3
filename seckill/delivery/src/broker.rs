//! What the sinks of all brokers have in common: one connection that is kept between calls, one batch at a time on it, and a pause after
//! a failure.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::{Delivery, DeliveryError, Event, RECONNECT, Sink, SinkTraits, pause::Pause};

/// Events that one call hands to a broker. Enough that its round trip and its disk are shared, few enough to be had again soon.
pub(super) const BATCH: usize = 256;

/// A broker, as its client library has it.
#[async_trait]
pub(super) trait Broker: Send + Sync + 'static {
    /// A connection that is ready to publish.
    type Link: Send + Sync + 'static;
    /// What the log calls it.
    const NAME: &'static str;
    /// Whether a link is kept whose confirms did not all come. They may still be on their way, and most clients would take them for some
    /// of the next batch's.
    const OUTLIVES_FAILURES: bool = false;
    /// How much later than the timeout its client may say itself that a message timed out.
    const GRACE: Duration = Duration::ZERO;

    /// Connects, logs in, and makes sure of the place that is published to. The error says what an operator must do.
    async fn connect(&self) -> Result<Self::Link, String>;

    /// Whether the link can be used.
    fn is_up(&self, link: &Self::Link) -> bool;

    /// Publishes all, then waits for the confirms of all. One outcome each, in their order, by the deadline.
    async fn publish(
        &self,
        link: &Self::Link,
        events: &[Event],
        deadline: Instant,
    ) -> Vec<Delivery>;
}

/// Makes a broker a sink. `timeout` bounds connecting, and then a batch.
pub(super) fn sink<B: Broker>(broker: B, timeout: Duration) -> Arc<dyn Sink> {
    Arc::new(BrokerSink {
        broker,
        timeout,
        state: Mutex::new(State {
            link: None,
            pause: Pause::new(RECONNECT),
        }),
    })
}

struct BrokerSink<B: Broker> {
    broker: B,
    timeout: Duration,
    /// A `std` lock: the link is taken out for a call and put back.
    state: Mutex<State<B::Link>>,
}

struct State<L> {
    link: Option<L>,
    pause: Pause,
}

impl<B: Broker> BrokerSink<B> {
    fn state(&self) -> MutexGuard<'_, State<B::Link>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link of the call before, or a new one.
    async fn link(&self) -> Result<B::Link, DeliveryError> {
        let kept = self.state().link.take();
        if let Some(link) = kept.filter(|link| self.broker.is_up(link)) {
            return Ok(link);
        }
        let deadline = Instant::now() + self.timeout;
        let why = match timeout_at(deadline, self.broker.connect()).await {
            Ok(Ok(link)) => {
                info!(broker = B::NAME, "connected");
                return Ok(link);
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        warn!(broker = B::NAME, error = %why, "the broker cannot be used, trying again later");
        Err(DeliveryError::Unreachable(why))
    }
}

#[async_trait]
impl<B: Broker> Sink for BrokerSink<B> {
    /// One call at a time, so that its confirms are of one batch and the order of publishing is the order of the queue.
    fn traits(&self) -> SinkTraits {
        SinkTraits {
            calls: NonZeroUsize::MIN,
            batch: NonZeroUsize::new(BATCH).expect("a batch holds something"),
            // Connecting and publishing.
            patience: 2 * self.timeout + B::GRACE,
        }
    }

    fn admit(&self, now: Instant) -> Result<(), Instant> {
        self.state().pause.ends(now).map_or(Ok(()), Err)
    }

    async fn deliver(&self, events: &[Event]) -> Vec<Delivery> {
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => {
                let mut state = self.state();
                state.pause.failed(Instant::now(), rand::random());
                return vec![Err(error); events.len()];
            }
        };
        let deadline = Instant::now() + self.timeout + B::GRACE;
        let outcomes = self.broker.publish(&link, events, deadline).await;
        let is_sound = outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(()) | Err(DeliveryError::Refused(_))));
        let mut state = self.state();
        if (is_sound || B::OUTLIVES_FAILURES) && self.broker.is_up(&link) {
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
