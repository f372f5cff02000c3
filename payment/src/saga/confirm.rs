//! A confirmation from its first transaction to its last, with the channel asked in between.

use std::sync::Arc;

use super::{
    Call, Parts, Reply, SagaError,
    open::{self, Opened, Target},
    settle::settle,
};
use crate::{
    channels::{ChannelError, ChannelOutcome, Guarded},
    db::retrying,
    idempotency,
    intents::{self, repo},
};

/// Runs the saga to its end, even if the client goes away meanwhile.
pub(crate) async fn confirm(
    parts: &Arc<Parts>,
    target: Target,
    call: Call,
) -> Result<Reply, SagaError> {
    if let Target::Existing {
        id,
        payment_method,
        client_secret,
    } = &target
    {
        if let Some(token) = payment_method {
            parts.check_token(token)?;
        }
        if client_secret.is_some() {
            let mut conn = parts.pool.acquire().await?;
            let intent = intents::existing(&mut conn, id).await?;
            intent.check_secret(client_secret.as_deref())?;
        }
    }
    let parts = Arc::clone(parts);
    let saga = tokio::spawn(async move { run(&parts, &target, &call).await });
    match saga.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down; the resolver of the next process finishes what was begun.
        Err(_) => Err(SagaError::Storage(sqlx::Error::PoolClosed)),
    }
}

async fn run(parts: &Parts, target: &Target, call: &Call) -> Result<Reply, SagaError> {
    let channel = channel_for(parts, target).await?;
    let permit = match channel.admit() {
        Ok(permit) => permit,
        Err(unavailable) => return answered_before(parts, call, unavailable).await,
    };
    let charge = match retrying(|| open::open(parts, channel, target, call)).await? {
        Opened::Answered(reply) => return Ok(reply),
        Opened::Charge(charge) => charge,
    };
    let outcome = channel.charge(permit, &charge.request()).await;
    if outcome == ChannelOutcome::Unknown {
        parts.metrics.in_doubt.increment(1.0);
    }
    let answer = settle(parts, &charge, &outcome, &call.cause()).await?;
    Ok(Reply::new(answer))
}

/// Where the money will be taken. If there is a choice, it depends on the token, which may be the one that the intent has already.
async fn channel_for<'a>(parts: &'a Parts, target: &Target) -> Result<&'a Guarded, SagaError> {
    if let Some(only) = parts.channels.only() {
        return Ok(only);
    }
    let token = match target {
        Target::New(draft) => draft.payment_method.clone(),
        Target::Existing {
            payment_method: Some(token),
            ..
        } => Some(token.clone()),
        Target::Existing { id, .. } => {
            let mut conn = parts.pool.acquire().await?;
            let intent = repo::find(&mut conn, id).await?;
            intent.and_then(|intent| intent.payment_method)
        }
    };
    Ok(parts.channels.for_new(token.as_deref().unwrap_or_default()))
}

/// While a channel is unavailable, a key that was answered before still has its answer.
async fn answered_before(
    parts: &Parts,
    call: &Call,
    unavailable: ChannelError,
) -> Result<Reply, SagaError> {
    if let Some(key) = &call.key {
        let mut conn = parts.pool.acquire().await?;
        if let Some(answer) = idempotency::peek(&mut conn, key).await? {
            return Ok(Reply::replay(answer));
        }
    }
    Err(unavailable.into())
}
