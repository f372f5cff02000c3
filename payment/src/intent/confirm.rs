//! The saga of a confirmation. Two transactions, and the channel between them:
//!
//! 1. *open* (here): claim the key, hold the order, move the intent to `processing`, record the charge, reserve the money;
//! 2. the channel is asked; nothing is locked and no connection is held, for it may take its time;
//! 3. *settle* (`settle.rs`): paid and posted together, or voided and the hold dropped together, or left open as unknown.
//!
//! A crash at any point leaves either nothing or a charge row that `resolve.rs` takes to step 3.
//! Rows are locked in one order everywhere: charge, order, balance, intent.

use std::sync::Arc;

use sqlx::AnyConnection;

use super::{
    ChargeId, Intent, IntentId, Status,
    charge::{self, Charge},
    repo,
    service::{Call, existing},
    settle::impossible,
    state::{self, Event},
    wire,
};
use crate::{
    channel::ChannelOutcome,
    error::PaymentError,
    events::{self, Cause},
    idempotency::{self, Answer, Begun},
    ledger,
    params::{ConfirmParams, Create},
    participant::Hold,
    service::{PaymentService, millis, retrying},
};

/// Added to the channel's deadline before the resolver takes a charge for abandoned: time for the second transaction.
pub(super) const GRACE_MS: i64 = 5_000;

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
            Err(_) => Err(PaymentError::Storage(sqlx::Error::PoolClosed)),
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
        intent.status = state::next(status, Event::Confirm).map_err(|_| cannot_confirm(&before))?;
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
