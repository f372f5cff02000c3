//! The first half of the saga, one transaction: nobody else can charge the intent or pay its order after it, and the money is reserved.

use sqlx::AnyConnection;

use super::{Call, Parts, Refusal, Reply, SagaError, impossible};
use crate::{
    channels::Guarded,
    charges::{self, Charge},
    events::{self, Cause},
    idempotency::{self, Begun},
    ids::{ChargeId, IntentId},
    intents::{
        self, Draft, Intent, IntentError, repo,
        state::{self, Event},
    },
    ledger,
    participant::{Hold, OrderError},
};

#[derive(Debug)]
pub(crate) enum Target {
    /// An intent made in the same transaction.
    New(Box<Draft>),
    /// One made before.
    Existing {
        id: IntentId,
        /// A new token; else the intent's own is charged.
        payment_method: Option<String>,
        /// What the caller believes the intent's secret to be.
        client_secret: Option<String>,
    },
}

/// How the first transaction ended.
pub(super) enum Opened {
    /// There is nothing to charge: the key has its answer already, or the answer is a refusal.
    Answered(Reply),
    /// The channel may be asked.
    Charge(Charge),
}

/// A charge to ask the channel for, or a final refusal, which has written nothing.
type Opening = Result<Result<Charge, Refusal>, SagaError>;

pub(super) async fn open(
    parts: &Parts,
    channel: &Guarded,
    target: &Target,
    call: &Call,
) -> Result<Opened, SagaError> {
    let now_ms = parts.now();
    let mut tx = parts.pool.begin().await?;
    let begun = idempotency::begin(&mut tx, call.key.as_ref(), None, now_ms).await?;
    if let Begun::Replay(answer) = begun {
        return Ok(Opened::Answered(Reply::replay(answer)));
    }
    let step = Step {
        parts,
        channel,
        cause: &call.cause(),
        now_ms,
    };
    let opened = match target {
        Target::New(draft) => step.open_new(&mut tx, draft).await?,
        Target::Existing {
            id, payment_method, ..
        } => {
            step.open_existing(&mut tx, id, payment_method.as_deref())
                .await?
        }
    };
    let opened = match opened {
        Ok(charge) => Opened::Charge(charge),
        // It has written nothing but its key, which keeps it.
        Err(refusal) => {
            let answer = (parts.render.refusal)(&refusal);
            idempotency::finish(&mut tx, call.key_text(), &answer).await?;
            Opened::Answered(Reply::new(answer))
        }
    };
    tx.commit().await?;
    Ok(opened)
}

/// What all of this transaction works with.
struct Step<'a> {
    parts: &'a Parts,
    channel: &'a Guarded,
    cause: &'a Cause,
    now_ms: i64,
}

impl Step<'_> {
    async fn open_new(&self, conn: &mut AnyConnection, draft: &Draft) -> Opening {
        let mut intent = draft.intent(&self.parts.ids, self.now_ms);
        if let Some(refusal) = self.hold_order(conn, &intent, None).await? {
            return Ok(Err(refusal));
        }
        self.record(conn, &intent).await?;
        intent.status = state::next(intent.status, Event::Confirm).map_err(impossible)?;
        intent.version += 1;
        repo::insert(conn, &intent).await?;
        self.open_charge(conn, &intent).await.map(Ok)
    }

    async fn open_existing(
        &self,
        conn: &mut AnyConnection,
        id: &IntentId,
        payment_method: Option<&str>,
    ) -> Opening {
        let before = intents::existing(conn, id).await?;
        let mut intent = before.clone();
        let Ok(status) = confirmed(&before, payment_method.is_some()) else {
            return Ok(Err(Refusal::CannotConfirm {
                intent: Box::new(before),
            }));
        };
        intent.status = status;
        if let Some(token) = payment_method {
            intent.payment_method = Some(token.to_owned());
        }
        let token = intent.payment_method.as_deref().unwrap_or_default();
        if self.parts.channels.for_new(token).name() != self.channel.name() {
            // Another request changed the token after the channel was chosen.
            return Err(IntentError::Contended { id: id.clone() }.into());
        }
        if let Some(refusal) = self.hold_order(conn, &intent, Some(&before)).await? {
            return Ok(Err(refusal));
        }
        intent.last_error = None;
        repo::update(conn, &mut intent).await?;
        self.open_charge(conn, &intent).await.map(Ok)
    }

    /// Keeps the order for this intent. `stored` is the intent as it stays if the order is gone.
    async fn hold_order(
        &self,
        conn: &mut AnyConnection,
        intent: &Intent,
        stored: Option<&Intent>,
    ) -> Result<Option<Refusal>, SagaError> {
        let Some((participant, reference)) = self.parts.order_of(intent) else {
            return Ok(None);
        };
        let hold = participant.hold(conn, reference, intent.id.as_str(), self.now_ms);
        match hold.await? {
            Hold::Held => Ok(None),
            Hold::Released => Ok(Some(Refusal::OrderReleased {
                intent: stored.cloned().map(Box::new),
            })),
            Hold::AlreadyPaid => Ok(Some(Refusal::OrderPaid)),
            Hold::HeldByOther => Err(OrderError::Busy.into()),
        }
    }

    /// Records the charge of an intent that has just begun processing, and reserves the money.
    async fn open_charge(
        &self,
        conn: &mut AnyConnection,
        intent: &Intent,
    ) -> Result<Charge, SagaError> {
        self.record(conn, intent).await?;
        let (parts, now_ms) = (self.parts, self.now_ms);
        let charge = Charge {
            id: ChargeId::draw(&parts.ids, now_ms),
            intent: intent.id.clone(),
            channel: self.channel.name().to_owned(),
            payment_method: intent.payment_method.clone().unwrap_or_default(),
            amount: intent.amount,
            idempotency_key: self.cause.idempotency_key.clone(),
            tries: 0,
        };
        charges::insert(conn, &charge, parts.abandoned_ms(now_ms), now_ms).await?;
        let transfer = charge.transfer();
        ledger::pend(conn, &transfer, now_ms)
            .await?
            .created(&transfer.id)?;
        Ok(charge)
    }

    async fn record(&self, conn: &mut AnyConnection, intent: &Intent) -> Result<(), SagaError> {
        let shown = (self.parts.render.intent)(intent);
        let ids = &self.parts.ids;
        events::record(conn, ids, intent, &shown.body, self.cause, self.now_ms).await?;
        Ok(())
    }
}

/// Where a confirmation takes an intent, with a new token or the one that it has.
fn confirmed(intent: &Intent, has_token: bool) -> Result<state::Status, state::Refused> {
    let status = match has_token {
        true => state::next(intent.status, Event::Attach)?,
        false => intent.status,
    };
    state::next(status, Event::Confirm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intents::{Status, testing};

    #[test]
    fn an_intent_is_confirmed_with_a_token_of_its_own_or_a_new_one() {
        let (bare, ready) = (testing::intent(None), testing::intent(Some("pm_card_visa")));
        assert_eq!(confirmed(&bare, true), Ok(Status::Processing));
        assert!(confirmed(&bare, false).is_err());
        assert_eq!(confirmed(&ready, false), Ok(Status::Processing));
        let mut busy = ready;
        busy.status = Status::Processing;
        assert!(confirmed(&busy, true).is_err() && confirmed(&busy, false).is_err());
    }
}
