//! The second half of the saga: what the channel said becomes an order paid and money posted, or neither, in one transaction.
//!
//! Called by the request that asked the channel, or by the resolver when that request could not finish; whoever ends the charge's
//! row first does the work, the other finds it done.

use sqlx::AnyConnection;

use super::{
    ChargeId, Decline, Intent, Status,
    charge::{self, Charge, Ended},
    confirm::GRACE_MS,
    repo,
    service::existing,
    state::{self, Event},
    wire,
};
use crate::{
    channel::{ChannelOutcome, Refusal},
    error::PaymentError,
    events::{self, Cause},
    idempotency::{self, Answer},
    ledger,
    participant::Confirm,
    service::{PaymentService, millis, retrying},
    sql,
};

/// The first question after a lost answer comes after this, each next one after twice as long.
const FIRST_QUERY_MS: i64 = 1_000;

/// Even a channel that has been silent for a day is asked once an hour.
const LAST_QUERY_MS: i64 = 3_600_000;

/// Stripe's word for a cancellation nobody asked for.
const LATE_REASON: &str = "automatic";

/// How the second transaction ended.
struct Settled {
    result: Result<Answer, PaymentError>,
    /// The money came too late and is to be given back.
    is_late: bool,
}

impl PaymentService {
    /// The second transaction, by the request or by the resolver, and the giving back of money that came too late.
    pub(super) async fn settle(
        &self,
        charge: &Charge,
        outcome: &ChannelOutcome,
        cause: &Cause,
    ) -> Result<Answer, PaymentError> {
        let settled = retrying(|| self.try_settle(charge, outcome, cause)).await?;
        if settled.is_late {
            self.metrics.late_refunds.increment(1);
            if let Err(error) = self.give_back(charge).await {
                tracing::warn!(charge = %charge.id, %error, "late refund put off");
            }
        }
        settled.result
    }

    async fn try_settle(
        &self,
        charge: &Charge,
        outcome: &ChannelOutcome,
        cause: &Cause,
    ) -> Result<Settled, PaymentError> {
        let now_ms = self.now();
        let mut tx = self.pool.begin().await?;
        let is_ours = match outcome {
            ChannelOutcome::Succeeded => {
                charge::end(&mut tx, &charge.id, Ended::Succeeded, now_ms).await?
            }
            ChannelOutcome::Declined(_) => {
                charge::end(&mut tx, &charge.id, Ended::Failed, now_ms).await?
            }
            ChannelOutcome::Unknown => {
                let next_ms = now_ms.saturating_add(backoff(charge.tries));
                charge::doubt(&mut tx, &charge.id, next_ms).await?
            }
        };
        let mut intent = existing(&mut tx, &charge.intent).await?;
        if !is_ours {
            // Somebody else settled it; the answer is what they found.
            return Ok(Settled {
                result: answer_of(intent, &charge.id),
                is_late: false,
            });
        }
        let mut is_late = false;
        match outcome {
            ChannelOutcome::Unknown => {}
            ChannelOutcome::Succeeded => {
                is_late = self.take(&mut tx, charge, &mut intent, now_ms).await?;
            }
            ChannelOutcome::Declined(refusal) => {
                self.refuse(&mut tx, charge, &mut intent, refusal, now_ms)
                    .await?;
            }
        }
        if *outcome != ChannelOutcome::Unknown {
            if !repo::update(&mut tx, &mut intent).await? {
                return Err(PaymentError::Contended);
            }
            let body = wire::json(&intent).to_string();
            events::record(&mut tx, &self.ids, &intent, &body, cause, now_ms).await?;
        }
        let is_paid = intent.status == Status::Succeeded;
        let result = answer_of(intent, &charge.id);
        if let Some(key) = &charge.idempotency_key {
            let answer = result.as_ref().map_or_else(|e| e.answer(), Answer::clone);
            idempotency::finish(&mut tx, key, &answer).await?;
        }
        tx.commit().await?;
        if let Some(participant) = &self.participant {
            participant.committed();
        }
        if is_paid {
            self.metrics.paid(charge.amount);
        }
        Ok(Settled { result, is_late })
    }

    /// The channel has the money: the order is paid and the money posted, or the order is gone and the money goes back. Returns
    /// whether it goes back.
    async fn take(
        &self,
        conn: &mut AnyConnection,
        charge: &Charge,
        intent: &mut Intent,
        now_ms: i64,
    ) -> Result<bool, PaymentError> {
        let confirmed = match self.order_of(intent) {
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
                intent.received_minor = charge.amount.minor();
                Ok(false)
            }
            Confirm::Released => {
                intent.status =
                    state::next(intent.status, Event::ChargeLate).map_err(impossible)?;
                intent.canceled_at_ms = Some(now_ms);
                intent.cancellation_reason = Some(LATE_REASON.to_owned());
                // On the books at once: this money is spoken for, whatever happens to this process.
                ledger::pend(conn, &charge.refund_transfer(), now_ms).await?;
                let next_ms = now_ms + millis(self.config.channel_timeout) + GRACE_MS;
                charge::insert_refund(conn, charge, next_ms, now_ms).await?;
                Ok(true)
            }
        }
    }

    /// The channel refused: the reservation is undone, and the order may be paid by another try.
    async fn refuse(
        &self,
        conn: &mut AnyConnection,
        charge: &Charge,
        intent: &mut Intent,
        refusal: &Refusal,
        now_ms: i64,
    ) -> Result<(), PaymentError> {
        if let Some((participant, reference)) = self.order_of(intent) {
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

    /// Asks the channel to give a late charge's money back, and posts it when it has. Repeatable; the resolver goes on until it is done.
    pub(super) async fn give_back(&self, charge: &Charge) -> Result<(), PaymentError> {
        self.check_channel(charge)?;
        let outcome = self.channel.refund(&charge.request()).await;
        retrying(|| self.try_give_back(charge, &outcome)).await
    }

    async fn try_give_back(
        &self,
        charge: &Charge,
        outcome: &ChannelOutcome,
    ) -> Result<(), PaymentError> {
        let now_ms = self.now();
        let mut tx = self.pool.begin().await?;
        if *outcome == ChannelOutcome::Succeeded {
            if charge::end_refund(&mut tx, &charge.id, now_ms).await? {
                let transfer = charge.refund_transfer().id;
                ledger::post(&mut tx, &transfer, now_ms)
                    .await?
                    .posted(&transfer)?;
            }
        } else {
            // A refused refund needs somebody to look at it, so it is said every time.
            tracing::warn!(charge = %charge.id, ?outcome, "late refund not taken by the channel yet");
            let next_ms = now_ms.saturating_add(backoff(charge.tries));
            charge::put_off_refund(&mut tx, &charge.id, next_ms).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// The answer to whoever asked for this charge, from the intent as it is now.
fn answer_of(intent: Intent, charge: &ChargeId) -> Result<Answer, PaymentError> {
    let declined = intent
        .last_error
        .clone()
        .filter(|decline| decline.charge == charge.as_str());
    match (intent.status, declined) {
        (Status::RequiresPaymentMethod, Some(decline)) => Err(PaymentError::Declined {
            decline: Box::new(decline),
            intent: Box::new(intent),
        }),
        (Status::Canceled, _) => Err(PaymentError::OrderReleased {
            intent: Some(Box::new(intent)),
        }),
        _ => Ok(Answer::ok(wire::json(&intent).to_string())),
    }
}

/// A live charge belongs to an intent in `processing`, and nothing else moves that: the row contradicts this crate.
pub(super) fn impossible(refused: state::Refused) -> PaymentError {
    PaymentError::Storage(sql::corrupt("intent status", refused.state.as_str()))
}

/// How long to wait before asking again after `tries` questions in vain.
fn backoff(tries: i64) -> i64 {
    let doublings = tries.clamp(0, 20);
    (FIRST_QUERY_MS << doublings).min(LAST_QUERY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_at_doubling_distances_up_to_an_hour() {
        assert_eq!(backoff(0), 1_000);
        assert_eq!(backoff(3), 8_000);
        assert_eq!(backoff(12), LAST_QUERY_MS);
        assert_eq!(backoff(i64::MAX), LAST_QUERY_MS);
    }
}
