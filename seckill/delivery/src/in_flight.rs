//! What a deliverer has in flight: events that are leased and wait for their turn, and calls of the sink under way. Both bounded:
//! the first by one lease, the second by the sink's [`SinkTraits`](super::SinkTraits).

use std::{collections::VecDeque, sync::Arc};

use tokio::{task::JoinSet, time::Instant};
use tracing::error;

use super::{Delivery, DeliveryError, Event, Sink};

/// Events with what became of them.
pub(super) type Attempts = Vec<(Event, Delivery)>;

#[derive(Default)]
pub(super) struct InFlight {
    /// With the instant at which its lease ends. Oldest first.
    waiting: VecDeque<(Event, Instant)>,
    calls: JoinSet<Attempts>,
}

impl InFlight {
    pub(super) fn take(&mut self, events: Vec<Event>, lease_ends: Instant) {
        self.waiting
            .extend(events.into_iter().map(|event| (event, lease_ends)));
    }

    /// Events that wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Begins as many calls as the sink allows. Answers before which instant it wants no more of them, if that is why something waits.
    pub(super) fn push(&mut self, sink: &Arc<dyn Sink>) -> Option<Instant> {
        let traits = sink.traits();
        while !self.waiting.is_empty() && self.calls.len() < traits.calls.get() {
            if let Err(not_before) = sink.admit(Instant::now()) {
                return Some(not_before);
            }
            let count = traits.batch.get().min(self.waiting.len());
            let events: Vec<Event> = self
                .waiting
                .drain(..count)
                .map(|(event, _)| event)
                .collect();
            let sink = sink.clone();
            self.calls.spawn(async move {
                let mut outcomes = sink.deliver(&events).await.into_iter();
                let silent = || Err(DeliveryError::Broken("the sink said nothing".to_owned()));
                events
                    .into_iter()
                    .map(|event| (event, outcomes.next().unwrap_or_else(silent)))
                    .collect()
            });
        }
        None
    }

    /// Takes back events whose lease would end before a call that begins now: another node may have them soon.
    pub(super) fn stale(&mut self, sink: &Arc<dyn Sink>) -> Vec<Event> {
        let needed_until = Instant::now() + sink.traits().patience;
        let mut stale = Vec::new();
        while self
            .waiting
            .front()
            .is_some_and(|(_, ends)| *ends <= needed_until)
        {
            stale.extend(self.waiting.pop_front().map(|(event, _)| event));
        }
        stale
    }

    /// Takes back all that waits.
    pub(super) fn give_back(&mut self) -> Vec<Event> {
        self.waiting.drain(..).map(|(event, _)| event).collect()
    }

    /// Waits for a call to end, and takes along whatever else has ended by then. `None` if no call is under way.
    pub(super) async fn ended(&mut self) -> Option<Attempts> {
        let first = self.calls.join_next().await?;
        let mut ended = Vec::new();
        let mut next = Some(first);
        while let Some(call) = next {
            match call {
                Ok(tried) => ended.extend(tried),
                // Its events come again when their lease ends.
                Err(panic) => error!(%panic, "a delivery broke down"),
            }
            next = self.calls.try_join_next();
        }
        Some(ended)
    }
}
