//! The end of an intent whose money is not moving, in one transaction.

use super::{Call, Parts, Refusal, Reply, SagaError};
use crate::{
    db::retrying,
    events,
    idempotency::{self, Begun},
    ids::IntentId,
    intents::{
        self, repo,
        state::{self, Event},
    },
};

/// Gives an intent up, unless money may be moving. `reason` is shown on the intent.
pub(crate) async fn cancel(
    parts: &Parts,
    id: &IntentId,
    reason: Option<&str>,
    call: &Call,
) -> Result<Reply, SagaError> {
    retrying(|| try_cancel(parts, id, reason, call)).await
}

async fn try_cancel(
    parts: &Parts,
    id: &IntentId,
    reason: Option<&str>,
    call: &Call,
) -> Result<Reply, SagaError> {
    let now_ms = parts.now();
    let mut tx = parts.pool.begin().await?;
    let begun = idempotency::begin(&mut tx, call.key.as_ref(), None, now_ms).await?;
    if let Begun::Replay(answer) = begun {
        return Ok(Reply::replay(answer));
    }
    let mut intent = intents::existing(&mut tx, id).await?;
    let answer = match state::next(intent.status, Event::Cancel) {
        Ok(next) => {
            // The order's row before the intent's, as everywhere.
            if let Some((participant, reference)) = parts.order_of(&intent) {
                participant
                    .cancel(&mut tx, reference, intent.id.as_str(), now_ms)
                    .await?;
            }
            intent.status = next;
            intent.canceled_at_ms = Some(now_ms);
            intent.cancellation_reason = reason.map(str::to_owned);
            repo::update(&mut tx, &mut intent).await?;
            let answer = (parts.render.intent)(&intent);
            let (ids, cause) = (&parts.ids, call.cause());
            events::record(&mut tx, ids, &intent, &answer.body, &cause, now_ms).await?;
            answer
        }
        Err(_) => (parts.render.refusal)(&Refusal::CannotCancel {
            intent: Box::new(intent),
        }),
    };
    idempotency::finish(&mut tx, call.key_text(), &answer).await?;
    tx.commit().await?;
    Ok(Reply::new(answer))
}
