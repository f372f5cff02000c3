//! The saga of a confirmation. Two transactions, and the channel between them:
//!
//! 1. *open*: claim the key, hold the order, move the intent to `processing`, record the charge, reserve the money;
//! 2. the channel is asked; nothing is locked and no connection is held, for it may take its time;
//! 3. *settle*: paid and posted together, or voided and the hold dropped together, or left open as unknown.
//!
//! A crash at any point leaves either nothing or a charge row that `resolve.rs` takes to step 3.
//! Rows are locked in one order everywhere: charge, order, balance, intent.

use std::sync::Arc;

use sqlx::AnyConnection;

use super::{
    ChargeId, Decline, Intent, IntentId, Status,
    charge::{self, Charge, Ended},
    repo,
    service::{Call, existing},
    state::{self, Event},
    wire,
};
use crate::{
    channel::{ChannelOutcome, Refusal},
    error::PaymentError,
    events::{self, Cause},
    idempotency::{self, Answer, Begun},
    ledger,
    params::{ConfirmParams, Create},
    participant::{Confirm, Hold},
    service::{PaymentService, millis, retrying},
    sql,
};

/// Added to the channel's deadline before the resolver takes a charge for abandoned: time for the second transaction.
const GRACE_MS: i64 = 5_000;

/// The first question after a lost answer comes after this, each next one after twice as long.
const FIRST_QUERY_MS: i64 = 1_000;

/// Even a channel that has been silent for a day is asked once an hour.
const LAST_QUERY_MS: i64 = 3_600_000;

/// Stripe's word for a cancellation nobody asked for.
const LATE_REASON: &str = "automatic";

/// What is confirmed.
#[derive(Debug)]
pub(crate) enum Target {
    /// An intent made in the same transaction.
    New(Box<Create>),
    /// One made before.
    Existing {
        /// Which.
        id: IntentId,
        /// With what.
        params: ConfirmParams,
    },
}

/// How the first transaction ended.
enum Opened {
    /// The key has its answer already.
    Replay(Answer),
    /// The channel may be asked.
    Charge(Charge),
}

/// How the second transaction ended.
struct Settled {
    result: Result<Answer, PaymentError>,
    /// The money came too late and is to be given back.
    is_late: bool,
}

impl PaymentService {
    /// Runs the saga to its end, even if the client goes away meanwhile.
    pub(super) async fn confirm(
        self: &Arc<Self>,
        target: Target,
        call: Call,
    ) -> Result<Answer, PaymentError> {
        let service = Arc::clone(self);
        let saga = tokio::spawn(async move { service.run_saga(&target, &call).await });
        match saga.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down; the resolver of the next process finishes what was begun.
            Err(_) => Err(PaymentError::Contended),
        }
    }

    async fn run_saga(&self, target: &Target, call: &Call) -> Result<Answer, PaymentError> {
        let permit = match self.channel.admit() {
            Ok(permit) => permit,
            Err(rejected) => {
                if let Some(key) = &call.key {
                    let mut conn = self.pool.acquire().await?;
                    if let Some(answer) = idempotency::peek(&mut conn, key).await? {
                        return Ok(answer);
                    }
                }
                return Err(PaymentError::ChannelUnavailable {
                    retry_after: rejected.retry_after,
                });
            }
        };
        let charge = match retrying(|| self.try_open(target, call)).await? {
            Opened::Replay(answer) => return Ok(answer),
            Opened::Charge(charge) => charge,
        };
        let outcome = self.channel.charge(permit, &charge.request()).await;
        if outcome == ChannelOutcome::Unknown {
            self.metrics.in_doubt.increment(1.0);
        }
        self.settle(&charge, &outcome, &call.cause()).await
    }

    /// The first transaction.
    async fn try_open(&self, target: &Target, call: &Call) -> Result<Opened, PaymentError> {
        let now_ms = self.now();
        let mut tx = self.pool.begin().await?;
        let begun = idempotency::begin(&mut tx, call.key.as_ref(), None, now_ms).await?;
        if let Begun::Replay(answer) = begun {
            return Ok(Opened::Replay(answer));
        }
        let opened = match target {
            Target::New(create) => self.open_new(&mut tx, create, call, now_ms).await,
            Target::Existing { id, params } => {
                self.open_existing(&mut tx, id, params, call, now_ms).await
            }
        };
        // A final refusal has written nothing but its key, which keeps it.
        if let (Err(error), Some(key)) = (&opened, &call.key)
            && error.is_final()
        {
            idempotency::finish(&mut tx, &key.key, &error.answer()).await?;
            tx.commit().await?;
            return opened.map(Opened::Charge);
        }
        let charge = opened?;
        tx.commit().await?;
        Ok(Opened::Charge(charge))
    }

    async fn open_new(
        &self,
        conn: &mut AnyConnection,
        create: &Create,
        call: &Call,
        now_ms: i64,
    ) -> Result<Charge, PaymentError> {
        let mut intent = self.new_intent(create, now_ms);
        self.hold_order(conn, &intent, None, now_ms).await?;
        let cause = call.cause();
        let body = wire::json(&intent).to_string();
        events::record(conn, &self.ids, &intent, &body, &cause, now_ms).await?;
        intent.status = state::next(intent.status, Event::Confirm).map_err(impossible)?;
        intent.version += 1;
        repo::insert(conn, &intent).await?;
        self.open_charge(conn, &intent, &cause, now_ms).await
    }

    async fn open_existing(
        &self,
        conn: &mut AnyConnection,
        id: &IntentId,
        params: &ConfirmParams,
        call: &Call,
        now_ms: i64,
    ) -> Result<Charge, PaymentError> {
        let mut intent = existing(conn, id).await?;
        let mut status = intent.status;
        let before = intent.clone();
        if params.payment_method.is_some() {
            status = state::next(status, Event::Attach).map_err(|_| cannot_confirm(&before))?;
            intent.payment_method.clone_from(&params.payment_method);
        }
        intent.status =
            state::next(status, Event::Confirm).map_err(|_| cannot_confirm(&before))?;
        self.hold_order(conn, &intent, Some(&before), now_ms)
            .await?;
        intent.last_error = None;
        if !repo::update(conn, &mut intent).await? {
            return Err(PaymentError::Contended);
        }
        self.open_charge(conn, &intent, &call.cause(), now_ms).await
    }

    /// Keeps the order for this intent. `stored` is the intent as it stays if the order is gone.
    async fn hold_order(
        &self,
        conn: &mut AnyConnection,
        intent: &Intent,
        stored: Option<&Intent>,
        now_ms: i64,
    ) -> Result<(), PaymentError> {
        let Some((participant, reference)) = self.order_of(intent) else {
            return Ok(());
        };
        let hold = participant.hold(conn, reference, intent.id.as_str(), now_ms);
        match hold.await? {
            Hold::Held => Ok(()),
            Hold::Released => Err(PaymentError::OrderReleased {
                intent: stored.cloned().map(Box::new),
            }),
            Hold::AlreadyPaid => Err(PaymentError::OrderPaid),
            Hold::HeldByOther => Err(PaymentError::OrderBusy),
        }
    }

    /// Records the charge of an intent that has just begun processing, and reserves the money.
    async fn open_charge(
        &self,
        conn: &mut AnyConnection,
        intent: &Intent,
        cause: &Cause,
        now_ms: i64,
    ) -> Result<Charge, PaymentError> {
        let body = wire::json(intent).to_string();
        events::record(conn, &self.ids, intent, &body, cause, now_ms).await?;
        let charge = Charge {
            id: ChargeId::trusted(self.ids.id(ChargeId::PREFIX, now_ms)),
            intent: intent.id.clone(),
            channel: self.channel.name().to_owned(),
            payment_method: intent.payment_method.clone().unwrap_or_default(),
            amount: intent.amount,
            idempotency_key: cause.idempotency_key.clone(),
            tries: 0,
        };
        let abandoned_ms = now_ms + millis(self.config.channel_timeout) + GRACE_MS;
        charge::insert(conn, &charge, abandoned_ms, now_ms).await?;
        ledger::pend(conn, &charge.transfer(), now_ms).await?;
        Ok(charge)
    }

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
        ledger::post(conn, &charge.transfer().id, now_ms).await?;
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
        ledger::void(conn, &charge.transfer().id, now_ms).await?;
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
                ledger::post(&mut tx, &charge.refund_transfer().id, now_ms).await?;
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
            decline,
            intent: Box::new(intent),
        }),
        (Status::Canceled, _) => Err(PaymentError::OrderReleased {
            intent: Some(Box::new(intent)),
        }),
        _ => Ok(Answer::ok(wire::json(&intent).to_string())),
    }
}

fn cannot_confirm(intent: &Intent) -> PaymentError {
    let message = match intent.status {
        Status::RequiresPaymentMethod => "You cannot confirm this PaymentIntent because it's missing a payment method. Pass a payment_method and try again.".to_owned(),
        status => format!(
            "You cannot confirm this PaymentIntent because it has a status of {status}."
        ),
    };
    PaymentError::UnexpectedState {
        message,
        intent: Box::new(intent.clone()),
    }
}

/// A live charge belongs to an intent in `processing`, and nothing else moves that: the row contradicts this crate.
fn impossible(refused: state::Refused) -> PaymentError {
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
