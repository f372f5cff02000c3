//! Every way a request can fail, and the answer to it. Which status and code each has stands in `table.rs` and nowhere else.

mod row;
mod table;

use std::time::Duration;

use serde_json::json;

pub(super) use self::table::refusal;
use super::{answer::Answer, echo::echo};
use crate::{
    channels::ChannelError, idempotency::KeyError, ids::IntentId, intents::IntentError,
    saga::SagaError,
};

/// What went wrong before, in or after the work. The message says so to the shop's developer; the code is for their program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// No key, or not ours. The caller must send `Authorization: Bearer sk_…`.
    #[error("{message}")]
    Unauthorized {
        /// What is wrong with the key, without repeating it.
        message: String,
    },
    /// An account that is none of this service's. The caller must leave the header out.
    #[error("no such account")]
    UnknownAccount { account: String },
    /// A parameter is wrong. The caller must send another.
    #[error("{message}")]
    Param {
        /// Stripe's code, where it has one.
        code: Option<&'static str>,
        param: String,
        message: String,
    },
    /// The body is no form at all.
    #[error("{message}")]
    Malformed { message: &'static str },
    /// The body is longer than we read.
    #[error("body longer than {limit} bytes")]
    BodyTooLarge { limit: usize },
    /// No such path, or not with this method.
    #[error("no such url")]
    UnknownUrl { method: String, path: String },
    /// No intent of that id.
    #[error("no such intent")]
    NoSuchIntent {
        id: String,
        /// The parameter that named it; none if it was the path, and then it is a 404.
        param: Option<&'static str>,
    },
    /// The order does not exist.
    #[error("no such order")]
    NoSuchOrder {
        reference: String,
        /// The parameter that named it.
        param: String,
    },
    /// The key cannot be used for this request.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The work was not done.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl From<IntentError> for WireError {
    fn from(error: IntentError) -> Self {
        Self::Saga(error.into())
    }
}

impl From<sqlx::Error> for WireError {
    fn from(error: sqlx::Error) -> Self {
        Self::Saga(error.into())
    }
}

/// Where nothing else is known: what is overloaded for longer is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl WireError {
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

    /// The answer to the client.
    pub(crate) fn answer(&self) -> Answer {
        let row = table::row(self);
        let body = json!({ "error": row.object() }).to_string();
        Answer {
            should_retry: Some(row.is_retried),
            retry_after: self.retry_after(row.status),
            ..Answer::new(row.status, body)
        }
    }

    /// When to come back, with every 503.
    fn retry_after(&self, status: u16) -> Option<Duration> {
        match self {
            Self::Saga(SagaError::Channel(ChannelError::Unavailable { retry_after })) => {
                Some(*retry_after)
            }
            _ => (status == 503).then_some(RETRY_AFTER),
        }
    }
}

/// An id of a path or a parameter.
pub(super) fn intent_id(id: &str, param: Option<&'static str>) -> Result<IntentId, WireError> {
    IntentId::parse(id).ok_or_else(|| WireError::NoSuchIntent {
        id: echo(id),
        param,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn object(error: WireError) -> (u16, Value, Option<bool>) {
        let answer = error.answer();
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["error"].clone(), answer.should_retry)
    }

    #[test]
    fn what_happened_inside_is_not_shown() {
        let error = SagaError::Storage(sqlx::Error::Protocol("secret host".into()));
        let (status, error, should_retry) = object(error.into());
        assert_eq!((status, should_retry), (500, Some(true)));
        assert!(!error.to_string().contains("secret"), "{error}");
        let (status, error, _) = object(sqlx::Error::PoolTimedOut.into());
        assert_eq!((status, &error["code"]), (503, &json!("overloaded")));
        let answer = WireError::from(sqlx::Error::PoolTimedOut).answer();
        assert_eq!(answer.retry_after, Some(RETRY_AFTER));
    }

    #[test]
    fn an_intent_of_the_path_is_not_found_and_one_of_a_parameter_is_wrong() {
        let (status, error, _) = object(intent_id("x", None).unwrap_err());
        assert_eq!((status, &error["param"]), (404, &json!("intent")));
        let (status, error, _) = object(intent_id("x", Some("starting_after")).unwrap_err());
        assert_eq!((status, &error["param"]), (400, &json!("starting_after")));
    }

    #[test]
    fn a_channel_says_when_to_come_back() {
        let retry_after = Duration::from_secs(7);
        let error = ChannelError::Unavailable { retry_after };
        let answer = WireError::Saga(error.into()).answer();
        assert_eq!(
            (answer.status, answer.retry_after),
            (503, Some(retry_after))
        );
    }
}
