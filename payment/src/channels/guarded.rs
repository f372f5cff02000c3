//! A channel behind its breaker and its deadline, measured. The saga talks to this, never to a [`Channel`] itself.

use std::{sync::Arc, time::Duration};

use limiter::breaker::{Breaker, BreakerConfig, Permit};
use tokio::time::{Instant, timeout};

use super::{Channel, ChannelError, ChannelOutcome, ChargeRequest, RefundRequest};
use crate::metrics::{AttemptOutcome, ChannelMetrics};

pub(crate) struct Guarded {
    channel: Arc<dyn Channel>,
    breaker: Breaker,
    deadline: Duration,
    metrics: ChannelMetrics,
}

impl Guarded {
    pub(super) fn new(channel: Arc<dyn Channel>, deadline: Duration) -> Self {
        let name = channel.name();
        let config = BreakerConfig {
            // A probe is given as long as any charge; sooner, a slow channel would never be found working again.
            probe_deadline: deadline + Duration::from_secs(1),
            ..BreakerConfig::default()
        };
        let breaker = Breaker::observed(config, Instant::now(), move |transition| {
            tracing::warn!(channel = name, from = ?transition.from, to = ?transition.to, "channel breaker moved");
        });
        Self {
            channel,
            breaker,
            deadline,
            metrics: ChannelMetrics::new(name),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.channel.name()
    }

    pub(crate) fn accepts(&self, payment_method: &str) -> bool {
        self.channel.accepts(payment_method)
    }

    /// Asks the breaker. This comes before anything is written, so a refusal leaves nothing to undo.
    pub(crate) fn admit(&self) -> Result<Permit, ChannelError> {
        self.breaker
            .try_acquire(Instant::now())
            .map_err(|rejected| {
                self.metrics.attempt(AttemptOutcome::Error);
                ChannelError::Unavailable {
                    retry_after: rejected.retry_after,
                }
            })
    }

    /// Takes the money, or does not know by the deadline.
    pub(crate) async fn charge(&self, permit: Permit, request: &ChargeRequest) -> ChannelOutcome {
        let start = Instant::now();
        let outcome = self.in_time(self.channel.charge(request)).await;
        let now = Instant::now();
        self.metrics.charge_took(now - start);
        // A decline is a healthy answer. Only silence speaks against the channel.
        match &outcome {
            ChannelOutcome::Succeeded => {
                permit.success(now);
                self.metrics.attempt(AttemptOutcome::Succeeded);
            }
            ChannelOutcome::Declined(_) => {
                permit.success(now);
                self.metrics.attempt(AttemptOutcome::Declined);
            }
            ChannelOutcome::Unknown => {
                permit.failure(now);
                self.metrics.attempt(AttemptOutcome::Unknown);
            }
        }
        outcome
    }

    /// Says what became of a charge. Not through the breaker: these few calls are what ends the doubt.
    pub(crate) async fn query(&self, request: &ChargeRequest) -> ChannelOutcome {
        self.in_time(self.channel.query(request)).await
    }

    /// Gives the money back.
    pub(crate) async fn refund(&self, request: &RefundRequest) -> ChannelOutcome {
        self.in_time(self.channel.refund(request)).await
    }

    async fn in_time(&self, answer: impl Future<Output = ChannelOutcome>) -> ChannelOutcome {
        timeout(self.deadline, answer)
            .await
            .unwrap_or(ChannelOutcome::Unknown)
    }
}
