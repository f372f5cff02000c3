//! The refusals of the sale API as RFC 9457 problem documents: one closed set of codes, each with its one status.

use std::{borrow::Cow, sync::LazyLock};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::ids::SkuId;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal;)*) => {
        /// Why a request was refused. The text form is stable: clients may switch on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $title] $(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The stable text form.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }

            fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// A header or a query parameter is missing or malformed.
    InvalidRequest = BAD_REQUEST, "invalid_request", "The request is malformed";
    /// The body is not JSON or has a wrong or unknown field.
    InvalidBody = BAD_REQUEST, "invalid_body", "The body is malformed";
    /// Not an object of strings within the bounds.
    InvalidMetadata = BAD_REQUEST, "invalid_metadata", "The metadata is out of bounds";
    /// It stands where it would be kept.
    CardDataRefused = BAD_REQUEST, "raw_card_data_refused", "Card numbers are not taken here";
    /// It stands where it would be kept.
    SecretKeyRefused = BAD_REQUEST, "secret_key_refused", "Secret keys are not taken here";
    InvalidQuantity = BAD_REQUEST, "invalid_quantity", "The quantity is out of range";
    OrderLimit = BAD_REQUEST, "order_limit", "One order may not hold so many units";
    MissingKey = BAD_REQUEST, "missing_idempotency_key", "An Idempotency-Key is required";
    /// The buyer is not named, or not by a hop that may.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "The buyer is not known";
    /// The buyer is on the sale's block list.
    Blocked = FORBIDDEN, "blocked", "The buyer may not buy here";
    /// The buyer is not on the sale's allow list.
    NotAllowed = FORBIDDEN, "not_allowed", "The buyer is not among those who may buy here";
    /// The buyer is not among the winners of the sale's lottery.
    NotDrawn = FORBIDDEN, "not_drawn", "The buyer was not drawn";
    WrongCode = FORBIDDEN, "wrong_code", "The code is wrong";
    TokenRequired = FORBIDDEN, "token_required", "An entitlement token is required";
    /// The token is not valid, or not for this buyer, sale, sku or quantity.
    TokenInvalid = FORBIDDEN, "token_invalid", "The entitlement token is not valid here";
    /// The token was valid.
    TokenExpired = FORBIDDEN, "token_expired", "The entitlement token has expired";
    NoSuchSale = NOT_FOUND, "no_such_sale", "There is no such sale";
    NoSuchSku = NOT_FOUND, "no_such_sku", "The sale does not sell this sku";
    /// No order of that id, or it is somebody else's.
    NoSuchOrder = NOT_FOUND, "no_such_order", "There is no such order";
    NoSuchLetter = NOT_FOUND, "no_such_letter", "There is no such dead letter";
    NoSuchEvent = NOT_FOUND, "no_such_event", "There is no such event";
    NoSlots = NOT_FOUND, "no_slots", "The sale has no slots";
    NoLottery = NOT_FOUND, "no_lottery", "The sale has no lottery";
    NoSuchEntry = NOT_FOUND, "no_such_entry", "The buyer has not entered";
    NotFound = NOT_FOUND, "not_found", "There is nothing here";
    /// The path exists, the method does not.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed here";
    /// Fewer units are left than asked for.
    SoldOut = CONFLICT, "sold_out", "Sold out";
    BuyerLimit = CONFLICT, "buyer_limit", "The buyer limit is reached";
    /// The token bought something else before.
    TokenUsed = CONFLICT, "token_used", "The entitlement token was used";
    /// No key is configured that can sign tokens.
    NoSigningKey = CONFLICT, "no_signing_key", "No key can sign tokens here";
    /// Too many tries at a code, or too many codes.
    CodeLocked = CONFLICT, "code_locked", "The code is locked";
    CheckedIn = CONFLICT, "checked_in", "The booking was used";
    /// The booking does not stand, or is not paid.
    NotBooked = CONFLICT, "not_booked", "The booking does not stand";
    NotDrawnYet = CONFLICT, "not_drawn_yet", "The lottery was not drawn yet";
    NotStarted = CONFLICT, "not_started", "The sale has not started";
    /// The order is on its way into the ledger.
    InFlight = CONFLICT, "in_flight", "The order is still being settled";
    /// The order is paid, being paid or returned.
    NotCancellable = CONFLICT, "not_cancellable", "The order can no longer be cancelled";
    SaleExists = CONFLICT, "sale_exists", "A sale of this id exists already";
    /// Where the sale stands forbids this change of it.
    NotEditable = CONFLICT, "not_editable", "The sale cannot be changed in this way";
    /// The sale was changed since the version that the change was made from.
    VersionConflict = PRECONDITION_FAILED, "version_conflict", "The sale is another version by now";
    /// A change does not name the version that it was made from.
    VersionRequired = PRECONDITION_REQUIRED, "version_required", "The version of the sale is required";
    EntriesClosed = GONE, "entries_closed", "Entries are closed";
    NoCarts = CONFLICT, "no_carts", "This sale takes no carts";
    Ended = GONE, "ended", "The sale has ended";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be application/json";
    KeyReused = UNPROCESSABLE_ENTITY, "key_reused", "The Idempotency-Key was used with other content";
    /// A document failed its checks.
    InvalidDocument = UNPROCESSABLE_ENTITY, "invalid_document", "The document has problems";
    /// The buyer has as many requests waiting as it may.
    TooManyWaiting = TOO_MANY_REQUESTS, "too_many_waiting", "Too many requests of this buyer are waiting";
    WaitingFull = SERVICE_UNAVAILABLE, "waiting_full", "No more requests can wait here";
    /// An operator has paused the sale.
    Paused = SERVICE_UNAVAILABLE, "paused", "The sale is paused";
    /// The segment is being checked or rebuilt.
    Frozen = SERVICE_UNAVAILABLE, "frozen", "The sale is frozen for a moment";
    /// A store or the ledger cannot be reached; nothing happened.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable";
}

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    retry_after_s: Option<u64>,
    problems: Option<serde_json::Value>,
    sku: Option<String>,
}

impl Problem {
    /// A refusal and what exactly was wrong.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after_s: None,
            problems: None,
            sku: None,
        }
    }

    /// Tells when waiting will have helped; at least one second, since 0 means "hammer me".
    pub fn retry_after_ms(mut self, wait_ms: u64) -> Self {
        self.retry_after_s = Some(wait_ms.div_ceil(1000).max(1));
        self
    }

    /// Adds a list of single problems under `problems`.
    pub fn with_problems(mut self, problems: &impl serde::Serialize) -> Self {
        self.problems = serde_json::to_value(problems).ok();
        self
    }

    /// Names the line of a cart that was refused, under `sku`.
    pub fn with_sku(mut self, sku: &SkuId) -> Self {
        self.sku = Some(sku.to_string());
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }
}

/// "Sold out": in a peak almost every answer is this one, so it is written once.
pub fn sold_out() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        Problem::new(Code::SoldOut, "no unit is left")
            .document()
            .into()
    });
    rendered(Code::SoldOut, Body::from(DOCUMENT.clone()))
}

fn rendered(code: Code, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code.status();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

impl Problem {
    fn document(&self) -> String {
        let mut document = json!({
            "type": format!("https://penstock.dev/problems/{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "code": self.code.as_str(),
            "detail": self.detail,
        });
        if let Some(problems) = &self.problems {
            document["problems"] = problems.clone();
        }
        if let Some(sku) = &self.sku {
            document["sku"] = sku.as_str().into();
        }
        document.to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = rendered(self.code, Body::from(self.document()));
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthenticated {
            // RFC 9110 15.5.2: a 401 says how to do better.
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_never_a_server_error_but_503() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?}");
            let status = code.status();
            assert!(
                status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                "{code:?}"
            );
        }
    }

    #[test]
    fn retry_after_is_never_zero() {
        let response = Problem::new(Code::NotStarted, "x")
            .retry_after_ms(0)
            .into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
