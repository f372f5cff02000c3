//! Ends every doubt: charges whose answer was lost or whose process died, and late money that is not back yet.
//!
//! Until the channel has said what happened, the intent stays `processing`, the money reserved and the order held.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::charge::{self, Charge};
use crate::{
    channel::ChannelOutcome,
    error::PaymentError,
    events::Cause,
    idempotency,
    service::{PaymentService, millis},
};

/// Charges asked about in one pass, side by side.
const BATCH: i64 = 32;

/// On top of the channel's deadline: nobody else asks about a claimed charge for so long.
const LEASE_MS: i64 = 30_000;

impl PaymentService {
    /// One pass: asks the channel about up to a batch of charges whose time has come, gives late money back, forgets old idempotency
    /// keys. Returns how many charges and refunds it asked about; call it again while that is not zero to catch up.
    pub async fn resolve_unknown(self: &Arc<Self>, now_ms: i64) -> Result<usize, PaymentError> {
        let until_ms = now_ms + millis(self.config.channel_timeout) + LEASE_MS;
        let (charges, refunds) = {
            let mut conn = self.pool.acquire().await?;
            let charges = charge::claim(&mut conn, now_ms, until_ms, BATCH).await?;
            let refunds = charge::claim_refunds(&mut conn, now_ms, until_ms, BATCH).await?;
            (charges, refunds)
        };
        let asked = charges.len() + refunds.len();
        let mut questions = JoinSet::new();
        for charge in charges {
            let service = Arc::clone(self);
            questions.spawn(async move { service.resolve_charge(&charge).await });
        }
        for charge in refunds {
            let service = Arc::clone(self);
            questions.spawn(async move { service.resolve_refund(&charge).await });
        }
        while let Some(joined) = questions.join_next().await {
            if let Err(error) = joined {
                tracing::error!(%error, "a payment question panicked; it is asked again later");
            }
        }
        let mut conn = self.pool.acquire().await?;
        let in_doubt = charge::count_unknown(&mut conn).await?;
        self.metrics.in_doubt.set(in_doubt as f64);
        let before_ms = now_ms - millis(self.config.idempotency_retention);
        idempotency::forget(&mut conn, before_ms).await?;
        Ok(asked)
    }

    async fn resolve_charge(&self, charge: &Charge) {
        if let Err(error) = self.check_channel(charge) {
            tracing::error!(charge = %charge.id, %error, "a charge in doubt cannot be asked about");
            return;
        }
        let outcome = self.channel.query(&charge.request()).await;
        let result = self.settle(charge, &outcome, &Cause::default()).await;
        match (&outcome, result) {
            (ChannelOutcome::Unknown, _) => {
                tracing::warn!(charge = %charge.id, tries = charge.tries + 1, "the channel still does not say");
            }
            // A decline or a late refund is an answer too, only not to us.
            (_, Err(error)) if !error.is_final() => {
                tracing::warn!(charge = %charge.id, %error, "settling failed, trying again later");
            }
            _ => tracing::info!(charge = %charge.id, ?outcome, "a charge in doubt is settled"),
        }
    }

    /// Only the channel that made a charge knows what became of it: another one would say that it never saw it, and the money would be
    /// taken for refused.
    pub(super) fn check_channel(&self, charge: &Charge) -> Result<(), PaymentError> {
        if charge.channel == self.channel.name() {
            return Ok(());
        }
        Err(PaymentError::ForeignChannel {
            made_by: charge.channel.clone(),
            configured: self.channel.name().to_owned(),
        })
    }

    async fn resolve_refund(&self, charge: &Charge) {
        if let Err(error) = self.give_back(charge).await {
            tracing::warn!(charge = %charge.id, %error, "late refund put off");
        }
    }
}
