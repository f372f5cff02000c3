//! A new intent: checked against its order, then stored with its event and its key's answer in one transaction, or charged at once.

use std::sync::Arc;

use super::{Call, Parts, Reply, SagaError, confirm::confirm, open::Target};
use crate::{
    db::retrying,
    events,
    idempotency::{self, Begun},
    intents::{Draft, repo},
    participant::{OrderError, Readiness},
};

/// Makes an intent, and charges it if `is_confirmed`.
pub(crate) async fn create(
    parts: &Arc<Parts>,
    draft: Draft,
    is_confirmed: bool,
    call: Call,
) -> Result<Reply, SagaError> {
    match &draft.payment_method {
        Some(token) => parts.check_token(token)?,
        None if is_confirmed => return Err(SagaError::MissingToken),
        None => {}
    }
    if let Some(replay) = check_order(parts, &draft, &call).await? {
        return Ok(replay);
    }
    if is_confirmed {
        return confirm(parts, Target::New(Box::new(draft)), call).await;
    }
    retrying(|| try_create(parts, &draft, &call)).await
}

async fn try_create(parts: &Parts, draft: &Draft, call: &Call) -> Result<Reply, SagaError> {
    let now_ms = parts.now();
    let intent = draft.intent(&parts.ids, now_ms);
    let answer = (parts.render.intent)(&intent);
    let mut tx = parts.pool.begin().await?;
    let begun = idempotency::begin(&mut tx, call.key.as_ref(), Some(&answer), now_ms).await?;
    if let Begun::Replay(answer) = begun {
        return Ok(Reply::replay(answer));
    }
    repo::insert(&mut tx, &intent).await?;
    let (ids, cause) = (&parts.ids, call.cause());
    events::record(&mut tx, ids, &intent, &answer.body, &cause, now_ms).await?;
    tx.commit().await?;
    Ok(Reply::new(answer))
}

/// Whether the order exists and costs this much. It may have to be waited for, so no connection is held; a key that was answered before
/// is answered at once.
async fn check_order(
    parts: &Parts,
    draft: &Draft,
    call: &Call,
) -> Result<Option<Reply>, SagaError> {
    let (Some(participant), Some(reference)) = (&parts.participant, &draft.reference) else {
        return Ok(None);
    };
    if let Some(key) = &call.key {
        let mut conn = parts.pool.acquire().await?;
        if let Some(answer) = idempotency::peek(&mut conn, key).await? {
            return Ok(Some(Reply::replay(answer)));
        }
    }
    match participant.ready(reference).await {
        Readiness::Ready {
            amount: Some(expected),
        } if expected != draft.amount => Err(OrderError::AmountMismatch { expected }.into()),
        Readiness::Ready { .. } => Ok(None),
        Readiness::NotFound => Err(OrderError::NoSuch {
            reference: reference.clone(),
        }
        .into()),
        Readiness::NotYet => Err(OrderError::NotReady.into()),
    }
}
