//! THE table: which status, type and code every error and every final refusal has. No other file of this crate picks one.

use serde_json::json;

use super::{
    super::{
        echo::echo,
        objects::{intent, payment_method, seconds},
    },
    WireError,
    row::{
        Kind::{self, Api, Card, InvalidRequest},
        Row,
    },
};
use crate::{
    channels::ChannelError,
    idempotency::{self, KeyError},
    intents::{IntentError, Status},
    participant::OrderError,
    saga::{Refusal, SagaError},
};

pub(super) fn row(error: &WireError) -> Row {
    match error {
        WireError::Unauthorized { message } => Row::new(401, InvalidRequest, None, message),
        WireError::UnknownAccount { account } => Row::new(
            403,
            InvalidRequest,
            Some("account_invalid"),
            format!(
                "No such account: '{account}'. This service has no connected accounts; send no Stripe-Account header."
            ),
        ),
        WireError::Param {
            code,
            param,
            message,
        } => Row::new(400, InvalidRequest, *code, message).of_param(param),
        WireError::Malformed { message } => {
            Row::new(400, InvalidRequest, Some("malformed_body"), *message)
        }
        WireError::BodyTooLarge { limit } => Row::new(
            413,
            InvalidRequest,
            Some("body_too_large"),
            format!("Request body is too large: at most {limit} bytes are accepted."),
        ),
        WireError::UnknownUrl { method, path } => Row::new(
            404,
            InvalidRequest,
            None,
            format!("Unrecognized request URL ({method}: {path})."),
        ),
        WireError::NoSuchIntent { id, param } => no_such_intent(id, *param),
        WireError::NoSuchOrder { reference, param } => no_such_order(reference).of_param(param),
        WireError::Key(error) => key_row(error),
        WireError::Saga(error) => saga_row(error),
    }
}

fn no_such_intent(id: &str, param: Option<&'static str>) -> Row {
    let status = if param.is_none() { 404 } else { 400 };
    let message = format!("No such payment_intent: '{id}'");
    Row::new(status, InvalidRequest, Some("resource_missing"), message)
        .of_param(param.unwrap_or("intent"))
}

fn no_such_order(reference: &str) -> Row {
    let message = format!("No such order: '{reference}'");
    Row::new(400, InvalidRequest, Some("resource_missing"), message)
}

fn key_row(error: &KeyError) -> Row {
    match error {
        KeyError::Malformed => {
            let message = format!(
                "Idempotency-Key must be 1 to {} visible ASCII characters.",
                idempotency::MAX_KEY
            );
            Row::new(400, InvalidRequest, Some("parameter_invalid"), message)
                .of_param("Idempotency-Key")
        }
        KeyError::InUse => Row::new(
            409,
            Kind::Idempotency,
            Some("idempotency_key_in_use"),
            "There is currently another in-progress request using this Idempotency-Key.",
        )
        .retried(),
        KeyError::Reused { key } => Row::new(
            400,
            Kind::Idempotency,
            None,
            format!(
                "Keys for idempotent requests can only be used with the same endpoint and the same parameters they were first used with. Try using a key other than '{key}' if you meant to execute a different request."
            ),
        ),
        KeyError::Storage(error) => storage_row(error),
    }
}

fn saga_row(error: &SagaError) -> Row {
    match error {
        SagaError::UnknownToken { token } => Row::new(
            400,
            InvalidRequest,
            Some("resource_missing"),
            format!("No such PaymentMethod: '{}'", echo(token)),
        )
        .of_param("payment_method"),
        SagaError::MissingToken => Row::new(
            400,
            InvalidRequest,
            Some("parameter_missing"),
            "Missing required param: payment_method, as confirm is true.",
        )
        .of_param("payment_method"),
        SagaError::Order(error) => order_row(error),
        SagaError::Intent(IntentError::NoSuch { id }) => no_such_intent(id.as_str(), None),
        SagaError::Intent(IntentError::WrongSecret) => Row::new(
            400,
            InvalidRequest,
            None,
            "The client_secret provided does not match the client_secret associated with the PaymentIntent.",
        )
        .of_param("client_secret"),
        SagaError::Intent(IntentError::Contended { .. }) => Row::new(
            409,
            InvalidRequest,
            Some("lock_timeout"),
            "This object cannot be accessed right now because another API request is accessing it.",
        )
        .retried(),
        SagaError::Key(error) => key_row(error),
        SagaError::Channel(ChannelError::Unavailable { .. }) => Row::new(
            503,
            Api,
            Some("channel_unavailable"),
            "The payment channel is unavailable; nothing was charged.",
        )
        .retried(),
        SagaError::Storage(error) | SagaError::Intent(IntentError::Storage(error)) => {
            storage_row(error)
        }
        SagaError::Ledger(_) | SagaError::Channel(ChannelError::Unregistered { .. }) => {
            inside_row(500, None)
        }
    }
}

fn order_row(error: &OrderError) -> Row {
    match error {
        OrderError::NoSuch { reference } => no_such_order(&echo(reference)).of_param("metadata"),
        OrderError::NotReady => Row::new(
            409,
            InvalidRequest,
            Some("order_not_ready"),
            "The order is not in the ledger yet; try again.",
        )
        .retried(),
        OrderError::AmountMismatch { expected } => Row::new(
            400,
            InvalidRequest,
            Some("amount_mismatch"),
            format!("The amount does not match the order's: expected {expected}."),
        )
        .of_param("amount"),
        OrderError::Busy => Row::new(
            409,
            InvalidRequest,
            Some("order_in_payment"),
            "Another payment for this order is in progress.",
        )
        .retried(),
    }
}

fn storage_row(error: &sqlx::Error) -> Row {
    match error {
        sqlx::Error::PoolTimedOut => inside_row(503, Some("overloaded")),
        _ => inside_row(500, None),
    }
}

/// What happened inside is for the log, not for the client.
fn inside_row(status: u16, code: Option<&str>) -> Row {
    const MESSAGE: &str = "An error occurred on our side; the outcome is being settled. Retry with the same Idempotency-Key.";
    Row::new(status, Api, code, MESSAGE).retried()
}

/// The answer to a request that is refused for good, as it is kept and shown.
pub(in super::super) fn refusal(refusal: &Refusal) -> idempotency::Answer {
    let row = refusal_row(refusal);
    let mut error = row.object();
    match refusal {
        Refusal::CannotConfirm { intent: shown }
        | Refusal::CannotCancel { intent: shown }
        | Refusal::OrderReleased {
            intent: Some(shown),
        } => {
            error.insert("payment_intent".into(), intent::json(shown));
        }
        Refusal::Declined {
            decline,
            intent: shown,
        } => {
            error.insert("charge".into(), json!(decline.charge));
            let created = seconds(shown.created_ms);
            let method = payment_method::json(&shown.id, &decline.payment_method, created);
            error.insert("payment_method".into(), method);
            if let Some(decline_code) = &decline.decline_code {
                error.insert("decline_code".into(), json!(decline_code));
            }
            error.insert("payment_intent".into(), intent::json(shown));
        }
        Refusal::OrderReleased { intent: None } | Refusal::OrderPaid => {}
    }
    idempotency::Answer {
        code: row.status,
        body: json!({ "error": error }).to_string(),
    }
}

fn refusal_row(refusal: &Refusal) -> Row {
    let unexpected_state = |message: String| {
        Row::new(
            400,
            InvalidRequest,
            Some("payment_intent_unexpected_state"),
            message,
        )
    };
    match refusal {
        Refusal::CannotConfirm { intent } => unexpected_state(match intent.status {
            Status::RequiresPaymentMethod => "You cannot confirm this PaymentIntent because it's missing a payment method. Pass a payment_method and try again.".to_owned(),
            status => format!("You cannot confirm this PaymentIntent because it has a status of {status}."),
        }),
        Refusal::CannotCancel { intent } => unexpected_state(format!(
            "You cannot cancel this PaymentIntent because it has a status of {}. Only a PaymentIntent with one of the following statuses may be canceled: {}, {}.",
            intent.status,
            Status::RequiresPaymentMethod,
            Status::RequiresConfirmation,
        )),
        Refusal::OrderReleased { .. } => Row::new(
            400,
            InvalidRequest,
            Some("order_released"),
            "The order was released and can no longer be paid. No money was kept.",
        ),
        Refusal::OrderPaid => Row::new(
            400,
            InvalidRequest,
            Some("order_already_paid"),
            "The order is already paid.",
        ),
        // The code is the channel's.
        Refusal::Declined { decline, .. } => {
            Row::new(402, Card, Some(&decline.code), &decline.message)
        }
    }
}
