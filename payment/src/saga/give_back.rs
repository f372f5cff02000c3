//! Money that came too late goes back. It is on the books since the transaction that found it late, whatever happens to this process.

use super::{Parts, SagaError, backoff};
use crate::{
    channels::ChannelOutcome,
    db::retrying,
    ledger,
    refunds::{self, Refund},
};

/// Asks the channel that took the money to give it back, and posts it when it has. Repeatable; the resolver goes on until it is done.
pub(super) async fn give_back(parts: &Parts, refund: &Refund) -> Result<(), SagaError> {
    let outcome = match parts.channels.of_charge(&refund.channel) {
        Ok(channel) => channel.refund(&refund.request()).await,
        // The registry has said so; it is tried again in case the operator configures the channel.
        Err(_) => ChannelOutcome::Unknown,
    };
    retrying(|| try_give_back(parts, refund, &outcome)).await
}

async fn try_give_back(
    parts: &Parts,
    refund: &Refund,
    outcome: &ChannelOutcome,
) -> Result<(), SagaError> {
    let now_ms = parts.now();
    let mut tx = parts.pool.begin().await?;
    if *outcome == ChannelOutcome::Succeeded {
        if refunds::end(&mut tx, refund, now_ms).await? {
            ledger::post(&mut tx, &refund.transfer, now_ms)
                .await?
                .posted(&refund.transfer)?;
        }
    } else {
        // A refused refund needs somebody to look at it, so it is said every time.
        tracing::warn!(refund = %refund.id, charge = %refund.charge, ?outcome, "late refund not taken by the channel yet");
        let next_ms = now_ms.saturating_add(backoff(refund.tries));
        refunds::put_off(&mut tx, refund, next_ms).await?;
    }
    tx.commit().await?;
    Ok(())
}
