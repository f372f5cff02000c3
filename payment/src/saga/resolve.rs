//! Ends every doubt: charges whose answer was lost or whose process died, and late money that is not back yet.
//!
//! Until the channel has said what happened, the intent stays `processing`, the money reserved and the order held.

use std::{pin::pin, sync::Arc};

use tokio::task::JoinSet;

use super::{Parts, give_back::give_back, millis, settle::settle};
use crate::{
    channels::ChannelOutcome,
    charges::{self, Charge},
    events::Cause,
    idempotency,
    refunds::{self, Refund},
};

/// Charges asked about in one pass, side by side.
const BATCH: i64 = 32;

/// On top of the channel's deadline: nobody else asks about a claimed charge for so long.
const LEASE_MS: i64 = 30_000;

/// Passes again and again until `shutdown`. One process that does it is enough; several do no harm.
pub(crate) async fn run(parts: Arc<Parts>, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    loop {
        if let Err(error) = resolve(&parts, parts.now()).await {
            tracing::warn!(%error, "payment resolver failed, trying again");
        }
        tokio::select! {
            () = &mut shutdown => return,
            () = tokio::time::sleep(parts.times.resolve_interval) => {}
        }
    }
}

/// One pass: asks the channels about up to a batch of charges whose time has come, gives late money back, forgets old idempotency keys.
/// Returns how many charges and refunds it looked after; call it again while that is not zero to catch up.
pub(crate) async fn resolve(parts: &Arc<Parts>, now_ms: i64) -> Result<usize, sqlx::Error> {
    let until_ms = now_ms + millis(parts.times.channel_timeout) + LEASE_MS;
    let (charges, refunds) = {
        let mut conn = parts.pool.acquire().await?;
        let charges = charges::claim(&mut conn, now_ms, until_ms, BATCH).await?;
        let refunds = refunds::claim(&mut conn, now_ms, until_ms, BATCH).await?;
        (charges, refunds)
    };
    let claimed = charges.len() + refunds.len();
    let mut questions = JoinSet::new();
    for charge in charges {
        let parts = Arc::clone(parts);
        questions.spawn(async move { resolve_charge(&parts, &charge).await });
    }
    for refund in refunds {
        let parts = Arc::clone(parts);
        questions.spawn(async move { resolve_refund(&parts, &refund).await });
    }
    while let Some(joined) = questions.join_next().await {
        if let Err(error) = joined {
            tracing::error!(%error, "a payment question panicked; it is asked again later");
        }
    }
    let mut conn = parts.pool.acquire().await?;
    let in_doubt = charges::count_unknown(&mut conn).await?;
    parts.metrics.in_doubt.set(in_doubt as f64);
    let before_ms = now_ms - millis(parts.times.idempotency_retention);
    idempotency::forget(&mut conn, before_ms).await?;
    Ok(claimed)
}

async fn resolve_charge(parts: &Parts, charge: &Charge) {
    let channel = parts.channels.of_charge(&charge.channel);
    let outcome = match &channel {
        Ok(channel) => channel.query(&charge.request()).await,
        // Nobody here can say. The registry has logged it.
        Err(_) => ChannelOutcome::Unknown,
    };
    let result = settle(parts, charge, &outcome, &Cause::default()).await;
    match (&outcome, result) {
        (_, Err(error)) => {
            tracing::warn!(charge = %charge.id, %error, "settling failed, trying again later");
        }
        (ChannelOutcome::Unknown, _) if channel.is_ok() => {
            tracing::warn!(charge = %charge.id, tries = charge.tries + 1, "the channel still does not say");
        }
        (ChannelOutcome::Unknown, _) => {}
        _ => tracing::info!(charge = %charge.id, ?outcome, "a charge in doubt is settled"),
    }
}

async fn resolve_refund(parts: &Parts, refund: &Refund) {
    if let Err(error) = give_back(parts, refund).await {
        tracing::warn!(refund = %refund.id, charge = %refund.charge, %error, "late refund put off");
    }
}
