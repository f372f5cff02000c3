//! Every way a request can fail, and the one place that turns it into a status and Stripe's error body.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    idempotency::Answer,
    intent::{Decline, Intent, method, wire},
    ledger::LedgerError,
    sql,
};

/// What went wrong. The message says so to the shop's developer; the code is for their program.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// No key, or not ours. The caller must send `Authorization: Bearer sk_…`.
    #[error("{message}")]
    Unauthorized {
        /// What is wrong with it, without repeating it.
        message: String,
    },
    /// An account that is none of this service's. The caller must leave the header out.
    #[error(
        "No such account: '{account}'. This service has no connected accounts; send no Stripe-Account header."
    )]
    UnknownAccount {
        /// The account asked for.
        account: String,
    },
    /// A parameter is wrong. The caller must send another.
    #[error("{message}")]
    Param {
        /// Stripe's code, where it has one.
        code: Option<&'static str>,
        /// Which one.
        param: String,
        /// What is wrong with it.
        message: String,
    },
    /// The body is no form at all.
    #[error("{message}")]
    Malformed {
        /// Where it stops being one.
        message: &'static str,
    },
    /// The body is longer than we read.
    #[error("Request body is too large: at most {limit} bytes are accepted.")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// No such path, or not with this method.
    #[error("Unrecognized request URL ({method}: {path}).")]
    UnknownUrl {
        /// The method.
        method: String,
        /// The path.
        path: String,
    },
    /// No intent of that id.
    #[error("No such payment_intent: '{id}'")]
    NoSuchIntent {
        /// The id asked for.
        id: String,
        /// Whether it was the path's (then it is a 404), or the parameter's name.
        param: Option<&'static str>,
    },
    /// The first request with this key is still at work. Send it again in a moment.
    #[error("There is currently another in-progress request using this Idempotency-Key.")]
    KeyInUse,
    /// The key was used for another request. The caller must not reuse keys.
    #[error(
        "Keys for idempotent requests can only be used with the same endpoint and the same parameters they were first used with. Try using a key other than '{key}' if you meant to execute a different request."
    )]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The intent is not in a state for this.
    #[error("{message}")]
    UnexpectedState {
        /// Why not.
        message: String,
        /// The intent as it is.
        intent: Box<Intent>,
    },
    /// The intent's amount is not what the order costs.
    #[error("The amount does not match the order's: expected {expected}.")]
    AmountMismatch {
        /// What the order costs, in words.
        expected: String,
    },
    /// The order does not exist.
    #[error("No such order: '{reference}'")]
    NoSuchOrder {
        /// The reference.
        reference: String,
        /// The parameter it came in.
        param: String,
    },
    /// The order is accepted but not in the ledger yet. Send it again in a moment.
    #[error("The order is not in the ledger yet; try again.")]
    OrderNotReady,
    /// The order ran out or was cancelled. Nothing was charged, or it was all given back.
    #[error("The order was released and can no longer be paid. No money was kept.")]
    OrderReleased {
        /// The intent as it is; none if it was not made at all.
        intent: Option<Box<Intent>>,
    },
    /// The order is paid already.
    #[error("The order is already paid.")]
    OrderPaid,
    /// Another intent is being charged for this order.
    #[error("Another payment for this order is in progress.")]
    OrderBusy,
    /// The channel refused. The buyer must use another card.
    #[error("{}", decline.message)]
    Declined {
        /// What it said.
        decline: Box<Decline>,
        /// The intent, ready for another try.
        intent: Box<Intent>,
    },
    /// The channel has not answered for a while and is not asked now. Nothing was charged.
    #[error("The payment channel is unavailable; nothing was charged.")]
    ChannelUnavailable {
        /// When it will be asked again.
        retry_after: Duration,
    },
    /// The charge was made by a channel that is not configured any more. The operator must configure it again.
    #[error("the charge was made by the channel {made_by}, and {configured} is configured")]
    ForeignChannel {
        /// Who made it.
        made_by: String,
        /// Who is asked here.
        configured: String,
    },
    /// Others were faster, again and again. Nothing was changed; send it again.
    #[error(
        "This object cannot be accessed right now because another API request is accessing it."
    )]
    Contended,
    /// The books refused, which the saga makes impossible: a bug or a damaged database.
    #[error("ledger: {0}")]
    Ledger(#[source] LedgerError),
    /// The database failed. What was asked may be done later, by the resolver.
    #[error("storage: {0}")]
    Storage(#[from] sqlx::Error),
}

impl From<LedgerError> for PaymentError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Storage(error) => Self::Storage(error),
            other => Self::Ledger(other),
        }
    }
}

/// Stripe's error types, of which the SDKs make their exceptions.
enum Kind {
    InvalidRequest,
    Card,
    Idempotency,
    Api,
}

/// What the SDK should do about it.
#[derive(PartialEq)]
enum Retry {
    Never,
    Soon,
}

impl PaymentError {
    /// An error about one parameter.
    pub(crate) fn param(
        code: Option<&'static str>,
        param: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::Param {
            code,
            param: param.into(),
            message: message.into(),
        }
    }

    /// Whether a race undid the transaction, so that it may simply be run again.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Contended => true,
            Self::Storage(error) => sql::is_transient(error),
            _ => false,
        }
    }

    /// Whether the answer is the request's final one and is kept under its idempotency key. Mistakes in the request are not, so that
    /// it may be sent again corrected; what may pass on its own is not, so that it may be sent again as it is.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::UnexpectedState { .. }
                | Self::OrderReleased { .. }
                | Self::OrderPaid
                | Self::Declined { .. }
        )
    }

    /// Status, type, code and retry advice: the only table of them in this crate.
    fn class(&self) -> (u16, Kind, Option<&'static str>, Retry) {
        use Kind::*;
        use Retry::*;
        match self {
            Self::Unauthorized { .. } => (401, InvalidRequest, None, Never),
            Self::UnknownAccount { .. } => (403, InvalidRequest, Some("account_invalid"), Never),
            Self::Param { code, .. } => (400, InvalidRequest, *code, Never),
            Self::Malformed { .. } => (400, InvalidRequest, Some("malformed_body"), Never),
            Self::BodyTooLarge { .. } => (413, InvalidRequest, Some("body_too_large"), Never),
            Self::UnknownUrl { .. } => (404, InvalidRequest, None, Never),
            Self::NoSuchIntent { param: None, .. } => {
                (404, InvalidRequest, Some("resource_missing"), Never)
            }
            Self::NoSuchIntent { .. } | Self::NoSuchOrder { .. } => {
                (400, InvalidRequest, Some("resource_missing"), Never)
            }
            Self::KeyInUse => (409, Idempotency, Some("idempotency_key_in_use"), Soon),
            Self::KeyReused { .. } => (400, Idempotency, None, Never),
            Self::UnexpectedState { .. } => (
                400,
                InvalidRequest,
                Some("payment_intent_unexpected_state"),
                Never,
            ),
            Self::AmountMismatch { .. } => (400, InvalidRequest, Some("amount_mismatch"), Never),
            Self::OrderNotReady => (409, InvalidRequest, Some("order_not_ready"), Soon),
            Self::OrderReleased { .. } => (400, InvalidRequest, Some("order_released"), Never),
            Self::OrderPaid => (400, InvalidRequest, Some("order_already_paid"), Never),
            Self::OrderBusy => (409, InvalidRequest, Some("order_in_payment"), Soon),
            // The code is the channel's; the body takes it from the decline.
            Self::Declined { .. } => (402, Card, None, Never),
            Self::ChannelUnavailable { .. } => (503, Api, Some("channel_unavailable"), Soon),
            Self::Contended => (409, InvalidRequest, Some("lock_timeout"), Soon),
            Self::Storage(sqlx::Error::PoolTimedOut) => (503, Api, Some("overloaded"), Soon),
            Self::Ledger(_) | Self::Storage(_) | Self::ForeignChannel { .. } => {
                (500, Api, None, Soon)
            }
        }
    }

    /// The answer to the client.
    pub(crate) fn answer(&self) -> Answer {
        let (status, kind, code, retry) = self.class();
        let mut error = Map::new();
        let mut put = |key: &str, value: Value| error.insert(key.to_owned(), value);
        put("type", json!(kind.as_str()));
        // What happened inside is for the log, not for the client.
        let message = match self {
            Self::Ledger(_) | Self::Storage(_) | Self::ForeignChannel { .. } => {
                "An error occurred on our side; the outcome is being settled. Retry with the same Idempotency-Key.".to_owned()
            }
            other => other.to_string(),
        };
        put("message", json!(message));
        if let Some(code) = code {
            put("code", json!(code));
            put("doc_url", json!(wire::doc_url(code)));
        }
        match self {
            Self::Param { param, .. } | Self::NoSuchOrder { param, .. } => {
                put("param", json!(param));
            }
            Self::NoSuchIntent { param, .. } => {
                put("param", json!(param.unwrap_or("intent")));
            }
            Self::AmountMismatch { .. } => {
                put("param", json!("amount"));
            }
            Self::Declined { decline, intent } => {
                put("code", json!(decline.code));
                put("charge", json!(decline.charge));
                put("doc_url", json!(wire::doc_url(&decline.code)));
                let created = wire::seconds(intent.created_ms);
                let method = method::json(&intent.id, &decline.payment_method, created);
                put("payment_method", method);
                if let Some(decline_code) = &decline.decline_code {
                    put("decline_code", json!(decline_code));
                }
                put("payment_intent", wire::json(intent));
            }
            Self::UnexpectedState { intent, .. }
            | Self::OrderReleased {
                intent: Some(intent),
            } => {
                put("payment_intent", wire::json(intent));
            }
            _ => {}
        }
        let mut answer = Answer::new(status, json!({ "error": error }).to_string());
        answer.should_retry = Some(retry == Retry::Soon);
        if let Self::ChannelUnavailable { retry_after } = self {
            answer.retry_after = Some(*retry_after);
        }
        answer
    }
}

impl Kind {
    fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Card => "card_error",
            Self::Idempotency => "idempotency_error",
            Self::Api => "api_error",
        }
    }
}
