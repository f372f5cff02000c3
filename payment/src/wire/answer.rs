//! An answer before it is a response: status, body, and what Stripe's SDKs are told about retries.

use std::time::Duration;

use crate::saga::Reply;

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: String,
    /// `Idempotent-Replayed: true`.
    pub(crate) is_replayed: bool,
    /// `Stripe-Should-Retry`, where there is something to say.
    pub(crate) should_retry: Option<bool>,
    /// `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            is_replayed: false,
            should_retry: None,
            retry_after: None,
        }
    }

    pub(crate) fn ok(body: String) -> Self {
        Self::new(200, body)
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let (status, body) = (reply.answer.code, reply.answer.body);
        Self {
            is_replayed: reply.is_replayed,
            // What the saga refuses is final: asking again cannot change it.
            should_retry: (status >= 400).then_some(false),
            ..Self::new(status, body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency;

    #[test]
    fn a_refusal_of_the_saga_is_final_and_a_success_says_nothing() {
        let reply = |code| Reply {
            answer: idempotency::Answer {
                code,
                body: String::new(),
            },
            is_replayed: true,
        };
        assert_eq!(Answer::from(reply(402)).should_retry, Some(false));
        assert_eq!(Answer::from(reply(200)).should_retry, None);
    }
}
