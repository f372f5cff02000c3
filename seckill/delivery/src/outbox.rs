//! Where events come from. The order of an order's events is the outbox's affair: it gives out none while an earlier one of the same
//! order is neither delivered nor given up.

use std::time::Duration;

use async_trait::async_trait;

use crate::Event;

/// The events that wait for delivery. Several deliverers share it by leases.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Why it cannot be read or written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Leases events that are due, oldest first. Until the lease ends no other caller gets them; if it ends without an answer
    /// they are due again.
    async fn lease_events(
        &self,
        now_ms: u64,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Event>, Self::Error>;

    /// These were delivered.
    async fn events_delivered(&self, events: &[Event], now_ms: u64) -> Result<(), Self::Error>;

    /// These are given up, each for its reason; they stay for an operator.
    async fn events_dead(&self, events: &[(Event, String)], now_ms: u64)
    -> Result<(), Self::Error>;

    /// These failed and are tried again later. Where the lease has ended and another node has the event, its word counts.
    async fn events_retry_at(&self, events: &[Event], due_ms: u64) -> Result<(), Self::Error>;

    /// These were never sent: they are due at `due_ms`, and this lease does not count as a try.
    async fn events_held(&self, events: &[Event], due_ms: u64) -> Result<(), Self::Error>;

    /// How many events wait, leased or not.
    async fn events_pending(&self) -> Result<u64, Self::Error>;

    /// How many events were given up and wait for an operator.
    async fn events_given_up(&self) -> Result<u64, Self::Error>;

    /// Forgets at most `limit` events delivered before an instant, oldest orders first; answers how many. Repeat it while it is `limit`.
    async fn prune_events(
        &self,
        delivered_before_ms: u64,
        limit: usize,
    ) -> Result<u64, Self::Error>;

    /// Waits until an event may be due, or for `at_most`.
    async fn events_due(&self, at_most: Duration);
}
