//! What an intent's endpoints do, but for the saga of a confirmation: create, cancel, retrieve, list. One transaction each.

use std::sync::Arc;

use serde_json::Value;
use sqlx::AnyConnection;

use super::{
    Intent, IntentId, Status, charge_object, method, repo,
    state::{self, Event},
    wire,
};
use crate::{
    error::PaymentError,
    events::{self, Cause},
    form::echo,
    idempotency::{self, Answer, Begun, Key},
    params::{Cancel, ConfirmParams, Create, Cursor, Page},
    participant::Readiness,
    service::{PaymentService, retrying},
};

use super::confirm::Target;

/// What every write comes with.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) key: Option<Key>,
}

impl Call {
    pub(crate) fn cause(&self) -> Cause {
        Cause {
            request_id: Some(self.request_id.clone()),
            idempotency_key: self.key.as_ref().map(|key| key.key.clone()),
        }
    }
}

impl PaymentService {
    /// Makes an intent, and charges it at once if asked to.
    pub(crate) async fn create(
        self: &Arc<Self>,
        create: Create,
        call: Call,
    ) -> Result<Answer, PaymentError> {
        if let Some(token) = &create.payment_method {
            self.check_token(token)?;
        } else if create.confirm {
            return Err(PaymentError::param(
                Some("parameter_missing"),
                "payment_method",
                "Missing required param: payment_method, as confirm is true.",
            ));
        }
        if let Some(answer) = self.check_order(&create, &call).await? {
            return Ok(answer);
        }
        if create.confirm {
            return self.confirm(Target::New(Box::new(create)), call).await;
        }
        retrying(|| self.try_create(&create, &call)).await
    }

    /// Charges an intent with the token it has or is given.
    pub(crate) async fn confirm_existing(
        self: &Arc<Self>,
        id: IntentId,
        params: ConfirmParams,
        call: Call,
    ) -> Result<Answer, PaymentError> {
        let mut params = params;
        if let Some(token) = &params.payment_method {
            if *token == method::id(&id) {
                // The method that this intent has already.
                params.payment_method = None;
            } else {
                self.check_token(token)?;
            }
        }
        if let Some(secret) = &params.client_secret {
            let mut conn = self.pool.acquire().await?;
            check_secret(&existing(&mut conn, &id).await?, secret)?;
        }
        self.confirm(Target::Existing { id, params }, call).await
    }

    /// Gives an intent up, unless money may be moving.
    pub(crate) async fn cancel(
        &self,
        id: &IntentId,
        cancel: &Cancel,
        call: &Call,
    ) -> Result<Answer, PaymentError> {
        retrying(|| self.try_cancel(id, cancel, call)).await
    }

    /// One intent.
    pub(crate) async fn retrieve(
        &self,
        id: &IntentId,
        client_secret: Option<&str>,
    ) -> Result<Answer, PaymentError> {
        let mut conn = self.pool.acquire().await?;
        let intent = existing(&mut conn, id).await?;
        if let Some(secret) = client_secret {
            check_secret(&intent, secret)?;
        }
        Ok(Answer::ok(wire::json(&intent).to_string()))
    }

    /// An answer with what was asked for as whole objects (`expand[]`) instead of ids.
    pub(crate) async fn expanded(
        &self,
        mut answer: Answer,
        expand: &[String],
    ) -> Result<Answer, PaymentError> {
        let wants = |name: &str| expand.iter().any(|wanted| wanted == name);
        let (wants_method, wants_charge) = (wants("payment_method"), wants("latest_charge"));
        if answer.status != 200 || !(wants_method || wants_charge) {
            return Ok(answer);
        }
        let Ok(mut body) = serde_json::from_str::<Value>(&answer.body) else {
            return Ok(answer);
        };
        let is_list = body.get("data").is_some_and(Value::is_array);
        let objects: Vec<&mut Value> = match is_list {
            true => body["data"].as_array_mut().into_iter().flatten().collect(),
            false => vec![&mut body],
        };
        let mut conn = self.pool.acquire().await?;
        for object in objects {
            let Some(id) = object["id"].as_str().and_then(IntentId::parse) else {
                continue;
            };
            let intent = existing(&mut conn, &id).await?;
            // What the answer says is null stays so: it may be the answer to an earlier request.
            if let (true, Some(token)) = (wants_method, &intent.payment_method)
                && object["payment_method"].is_string()
            {
                let created = wire::seconds(intent.created_ms);
                object["payment_method"] = method::json(&intent.id, token, created);
            }
            if wants_charge && let Some(charge) = object["latest_charge"].as_str() {
                object["latest_charge"] = charge_object::json(&intent, charge);
            }
        }
        answer.body = body.to_string();
        Ok(answer)
    }

    /// A page of intents.
    pub(crate) async fn list(&self, page: &Page) -> Result<Answer, PaymentError> {
        let mut conn = self.pool.acquire().await?;
        let at = match &page.cursor {
            None => None,
            Some(cursor) => {
                let (id, param) = match cursor {
                    Cursor::StartingAfter(id) => (id, "starting_after"),
                    Cursor::EndingBefore(id) => (id, "ending_before"),
                };
                let intent = repo::find(&mut conn, id).await?;
                let intent = intent.ok_or_else(|| PaymentError::NoSuchIntent {
                    id: id.to_string(),
                    param: Some(param),
                })?;
                Some((cursor, intent))
            }
        };
        let at = at.as_ref().map(|(cursor, intent)| (*cursor, intent));
        let created_ms = (
            page.created.0.saturating_mul(1000),
            page.created.1.saturating_mul(1000).saturating_add(999),
        );
        // One more than asked for says whether there are more.
        let mut intents = repo::page(&mut conn, at, created_ms, page.limit + 1).await?;
        let wanted = usize::try_from(page.limit).expect("a limit is 1 to 100");
        let has_more = intents.len() > wanted;
        if has_more && matches!(page.cursor, Some(Cursor::EndingBefore(_))) {
            // The page ends at the cursor, so what is too much is at its far end.
            intents.remove(0);
        }
        intents.truncate(wanted);
        Ok(Answer::ok(wire::list(&intents, has_more).to_string()))
    }

    async fn try_create(&self, create: &Create, call: &Call) -> Result<Answer, PaymentError> {
        let now_ms = self.now();
        let intent = self.new_intent(create, now_ms);
        let answer = Answer::ok(wire::json(&intent).to_string());
        let mut tx = self.pool.begin().await?;
        let begun = idempotency::begin(&mut tx, call.key.as_ref(), Some(&answer), now_ms).await?;
        if let Begun::Replay(answer) = begun {
            return Ok(answer);
        }
        repo::insert(&mut tx, &intent).await?;
        let (body, cause) = (&answer.body, call.cause());
        events::record(&mut tx, &self.ids, &intent, body, &cause, now_ms).await?;
        tx.commit().await?;
        Ok(answer)
    }

    async fn try_cancel(
        &self,
        id: &IntentId,
        cancel: &Cancel,
        call: &Call,
    ) -> Result<Answer, PaymentError> {
        let now_ms = self.now();
        let mut tx = self.pool.begin().await?;
        let begun = idempotency::begin(&mut tx, call.key.as_ref(), None, now_ms).await?;
        if let Begun::Replay(answer) = begun {
            return Ok(answer);
        }
        let mut intent = existing(&mut tx, id).await?;
        let result = match state::next(intent.status, Event::Cancel) {
            Ok(next) => {
                // The order's row before the intent's, as everywhere.
                if let Some((participant, reference)) = self.order_of(&intent) {
                    participant
                        .cancel(&mut tx, reference, intent.id.as_str(), now_ms)
                        .await?;
                }
                intent.status = next;
                intent.canceled_at_ms = Some(now_ms);
                intent.cancellation_reason.clone_from(&cancel.reason);
                if !repo::update(&mut tx, &mut intent).await? {
                    return Err(PaymentError::Contended);
                }
                let body = wire::json(&intent).to_string();
                events::record(&mut tx, &self.ids, &intent, &body, &call.cause(), now_ms).await?;
                Ok(Answer::ok(body))
            }
            Err(_) => Err(PaymentError::UnexpectedState {
                message: format!(
                    "You cannot cancel this PaymentIntent because it has a status of {}. Only a PaymentIntent with one of the following statuses may be canceled: {}, {}.",
                    intent.status,
                    Status::RequiresPaymentMethod,
                    Status::RequiresConfirmation,
                ),
                intent: Box::new(intent),
            }),
        };
        if let Some(key) = &call.key {
            let answer = result.as_ref().map_or_else(|e| e.answer(), Answer::clone);
            idempotency::finish(&mut tx, &key.key, &answer).await?;
        }
        tx.commit().await?;
        result
    }

    /// A new intent in its first state, not yet stored.
    pub(super) fn new_intent(&self, create: &Create, now_ms: i64) -> Intent {
        let id = self.ids.id(IntentId::PREFIX, now_ms);
        Intent {
            client_secret: format!("{id}_secret_{}", self.ids.secret()),
            id: IntentId::trusted(id),
            amount: create.amount,
            received_minor: 0,
            status: match create.payment_method {
                Some(_) => Status::RequiresConfirmation,
                None => Status::RequiresPaymentMethod,
            },
            payment_method: create.payment_method.clone(),
            reference: create.reference.clone(),
            metadata: create.metadata.clone(),
            details: create.details.clone(),
            latest_charge: None,
            last_error: None,
            cancellation_reason: None,
            canceled_at_ms: None,
            created_ms: now_ms,
            version: 1,
        }
    }

    fn check_token(&self, token: &str) -> Result<(), PaymentError> {
        if self.channel.accepts(token) {
            return Ok(());
        }
        let message = format!("No such PaymentMethod: '{}'", echo(token));
        Err(PaymentError::param(
            Some("resource_missing"),
            "payment_method",
            message,
        ))
    }

    /// Whether the order exists and costs this much. It may have to be waited for, so no connection is held; a key that was
    /// answered before is answered at once.
    async fn check_order(
        &self,
        create: &Create,
        call: &Call,
    ) -> Result<Option<Answer>, PaymentError> {
        let (Some(participant), Some(reference)) = (&self.participant, &create.reference) else {
            return Ok(None);
        };
        if let Some(key) = &call.key {
            let mut conn = self.pool.acquire().await?;
            if let Some(answer) = idempotency::peek(&mut conn, key).await? {
                return Ok(Some(answer));
            }
        }
        match participant.ready(reference).await {
            Readiness::Ready {
                amount: Some(amount),
            } if amount != create.amount => Err(PaymentError::AmountMismatch {
                expected: amount.to_string(),
            }),
            Readiness::Ready { .. } => Ok(None),
            Readiness::NotFound => Err(PaymentError::NoSuchOrder {
                reference: echo(reference),
                param: format!("metadata[{}]", self.config.order_metadata_key),
            }),
            Readiness::NotYet => Err(PaymentError::OrderNotReady),
        }
    }

    /// What an intent pays for, if anything.
    pub(super) fn order_of<'a>(
        &'a self,
        intent: &'a Intent,
    ) -> Option<(&'a dyn crate::Participant, &'a str)> {
        Some((self.participant.as_deref()?, intent.reference.as_deref()?))
    }
}

/// The intent of a path's id.
pub(super) async fn existing(
    conn: &mut AnyConnection,
    id: &IntentId,
) -> Result<Intent, PaymentError> {
    repo::find(conn, id)
        .await?
        .ok_or_else(|| PaymentError::NoSuchIntent {
            id: id.to_string(),
            param: None,
        })
}

/// A caller who names a secret must name this intent's. The API key let them in already, so it is no second lock: it keeps a shop
/// that mixes two intents up from charging the wrong one.
fn check_secret(intent: &Intent, client_secret: &str) -> Result<(), PaymentError> {
    if intent.client_secret == client_secret {
        return Ok(());
    }
    Err(PaymentError::param(
        None,
        "client_secret",
        "The client_secret provided does not match the client_secret associated with the PaymentIntent.",
    ))
}
