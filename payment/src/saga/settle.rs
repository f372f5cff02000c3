//! The second half of the saga: what the channel said becomes an order paid and money posted, or neither, in one transaction.
//!
//! Called by the request that asked the channel, or by the resolver when that request could not finish. The one that ends the charge's row
//! first does the work; the other finds it done.

use sqlx::AnyConnection;

use super::{Parts, Refusal, SagaError, backoff, give_back::give_back, impossible};
use crate::{
    channels::{self, ChannelOutcome},
    charges::{self, Charge, Ended},
    db::{self, retrying},
    events::{self, Cause},
    idempotency::{self, Answer},
    intents::{
        self, Decline, Intent, Status, repo,
        state::{self, Event},
    },
    ledger,
    participant::Confirm,
    refunds::{self, Refund},
};

/// Stripe's word for a cancellation nobody asked for.
const LATE_REASON: &str = "automatic";

/// How the second transaction ended.
struct Settled {
    answer: Answer,
    /// The money came too late and is to be given back.
    late: Option<Refund>,
}

/// The second transaction, by the request or by the resolver, and the giving back of money that came too late.
pub(super) async fn settle(
    parts: &Parts,
    charge: &Charge,
    outcome: &ChannelOutcome,
    cause: &Cause,
) -> Result<Answer, SagaError> {
    let settled = retrying(|| try_settle(parts, charge, outcome, cause)).await?;
    if let Some(refund) = settled.late {
        parts.metrics.late_refunds.increment(1);
        if let Err(error) = give_back(parts, &refund).await {
            tracing::warn!(charge = %charge.id, %error, "late refund put off");
        }
    }
    Ok(settled.answer)
}

async fn try_settle(
    parts: &Parts,
    charge: &Charge,
    outcome: &ChannelOutcome,
    cause: &Cause,
) -> Result<Settled, SagaError> {
    let now_ms = parts.now();
    let mut tx = parts.pool.begin().await?;
    let is_ours = match outcome {
        ChannelOutcome::Succeeded => {
            charges::end(&mut tx, &charge.id, Ended::Succeeded, now_ms).await?
        }
        ChannelOutcome::Declined(_) => {
            charges::end(&mut tx, &charge.id, Ended::Failed, now_ms).await?
        }
        ChannelOutcome::Unknown => {
            let next_ms = now_ms.saturating_add(backoff(charge.tries));
            charges::doubt(&mut tx, &charge.id, next_ms).await?
        }
    };
    let mut intent = intents::existing(&mut tx, &charge.intent).await?;
    if !is_ours {
        // Somebody else settled it; the answer is what they found.
        let shown = (parts.render.intent)(&intent);
        return Ok(Settled {
            answer: answer_of(parts, intent, shown, charge),
            late: None,
        });
    }
    let late = match outcome {
        ChannelOutcome::Unknown => None,
        ChannelOutcome::Succeeded => take(parts, &mut tx, charge, &mut intent, now_ms).await?,
        ChannelOutcome::Declined(refusal) => {
            refuse(parts, &mut tx, charge, &mut intent, refusal, now_ms).await?;
            None
        }
    };
    let is_decided = *outcome != ChannelOutcome::Unknown;
    if is_decided {
        repo::update(&mut tx, &mut intent).await?;
    }
    let shown = (parts.render.intent)(&intent);
    if is_decided {
        events::record(&mut tx, &parts.ids, &intent, &shown.body, cause, now_ms).await?;
    }
    let is_paid = intent.status == Status::Succeeded;
    let answer = answer_of(parts, intent, shown, charge);
    idempotency::finish(&mut tx, charge.idempotency_key.as_deref(), &answer).await?;
    tx.commit().await?;
    if let Some(participant) = &parts.participant {
        participant.committed();
    }
    if is_paid {
        parts.metrics.paid(charge.amount);
    }
    Ok(Settled { answer, late })
}

/// The channel has the money: the order is paid and the money posted, or the order is gone and the money goes back. Returns what goes
/// back.
async fn take(
    parts: &Parts,
    conn: &mut AnyConnection,
    charge: &Charge,
    intent: &mut Intent,
    now_ms: i64,
) -> Result<Option<Refund>, SagaError> {
    let confirmed = match parts.order_of(intent) {
        None => Confirm::Confirmed,
        Some((participant, reference)) => {
            participant
                .confirm(conn, reference, intent.id.as_str(), now_ms)
                .await?
        }
    };
    let transfer = charge.transfer().id;
    ledger::post(conn, &transfer, now_ms)
        .await?
        .posted(&transfer)?;
    intent.latest_charge = Some(charge.id.clone());
    match confirmed {
        Confirm::Confirmed => {
            intent.status =
                state::next(intent.status, Event::ChargeSucceeded).map_err(impossible)?;
            let received = intent.received.checked_add(charge.amount);
            // One charge of the intent's own amount: the rows contradict this crate.
            intent.received =
                received.map_err(|error| db::corrupt("received amount", &error.to_string()))?;
            Ok(None)
        }
        Confirm::Released => {
            intent.status = state::next(intent.status, Event::ChargeLate).map_err(impossible)?;
            intent.canceled_at_ms = Some(now_ms);
            intent.cancellation_reason = Some(LATE_REASON.to_owned());
            // On the books at once: this money is spoken for, whatever happens to this process.
            let refund = Refund::of_late(charge, &parts.ids, now_ms);
            let transfer = refund.transfer();
            ledger::pend(conn, &transfer, now_ms)
                .await?
                .created(&transfer.id)?;
            refunds::insert(conn, &refund, parts.abandoned_ms(now_ms), now_ms).await?;
            Ok(Some(refund))
        }
    }
}

/// The channel refused: the reservation is undone, and the order may be paid by another try.
async fn refuse(
    parts: &Parts,
    conn: &mut AnyConnection,
    charge: &Charge,
    intent: &mut Intent,
    refusal: &channels::Refusal,
    now_ms: i64,
) -> Result<(), SagaError> {
    if let Some((participant, reference)) = parts.order_of(intent) {
        participant
            .cancel(conn, reference, intent.id.as_str(), now_ms)
            .await?;
    }
    let transfer = charge.transfer().id;
    ledger::void(conn, &transfer, now_ms)
        .await?
        .voided(&transfer)?;
    intent.status = state::next(intent.status, Event::ChargeDeclined).map_err(impossible)?;
    intent.latest_charge = Some(charge.id.clone());
    intent.payment_method = None;
    intent.last_error = Some(Decline {
        code: refusal.code.clone().into_owned(),
        decline_code: refusal.decline_code.clone().map(Into::into),
        message: refusal.message.clone().into_owned(),
        charge: charge.id.to_string(),
        payment_method: charge.payment_method.clone(),
    });
    Ok(())
}

/// The answer to the request for this charge, from the intent as it is now and is `shown`.
fn answer_of(parts: &Parts, intent: Intent, shown: Answer, charge: &Charge) -> Answer {
    let declined = intent
        .last_error
        .clone()
        .filter(|decline| decline.charge == charge.id.as_str());
    let refusal = match (intent.status, declined) {
        (Status::RequiresPaymentMethod, Some(decline)) => Refusal::Declined {
            decline: Box::new(decline),
            intent: Box::new(intent),
        },
        (Status::Canceled, _) => Refusal::OrderReleased {
            intent: Some(Box::new(intent)),
        },
        _ => return shown,
    };
    (parts.render.refusal)(&refusal)
}
