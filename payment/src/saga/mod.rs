//! The saga of a payment: functions over [`Parts`], each a transaction or the way between two.
//!
//! ```text
//! create.rs      an intent, one transaction
//! cancel.rs      the end of an intent that was not charged, one transaction
//! confirm.rs     1. open.rs    claim the key, hold the order, move the intent to processing, record the charge, reserve the money
//!                2. the channel is asked; nothing is locked and no connection is held, for it may take its time
//!                3. settle.rs  paid and posted together, or voided and the hold dropped together, or left open as unknown
//! give_back.rs   money that came too late
//! resolve.rs     whatever a process left open is taken to step 3
//! ```
//! A crash at any point leaves either nothing or a charge's row. Rows are locked in one order everywhere: charge, order, balance, intent.

mod cancel;
mod confirm;
mod create;
mod error;
mod give_back;
mod open;
mod resolve;
mod settle;

use std::{sync::Arc, time::Duration};

use sqlx::AnyPool;

pub(crate) use self::{
    cancel::cancel,
    confirm::confirm,
    create::create,
    error::{Refusal, SagaError},
    open::Target,
    resolve::{resolve, run},
};
use crate::{
    channels::Registry,
    db,
    events::Cause,
    idempotency::{Answer, Key},
    ids::IdSource,
    intents::{Intent, state},
    metrics::Metrics,
    participant::Participant,
};

/// Wall-clock time in unix milliseconds. This crate never reads a clock of its own.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the saga works with.
pub(crate) struct Parts {
    /// May have a single connection (SQLite): nothing here takes a second one while it holds a transaction.
    pub(crate) pool: AnyPool,
    pub(crate) channels: Registry,
    pub(crate) participant: Option<Arc<dyn Participant>>,
    pub(crate) ids: IdSource,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) render: Render,
    pub(crate) times: Times,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) channel_timeout: Duration,
    pub(crate) resolve_interval: Duration,
    pub(crate) idempotency_retention: Duration,
}

/// Makes the bytes that are kept and shown. The saga stores them in its transactions and does not read them.
pub(crate) struct Render {
    pub(crate) intent: fn(&Intent) -> Answer,
    pub(crate) refusal: fn(&Refusal) -> Answer,
}

/// What every write comes with.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) key: Option<Key>,
}

/// What a caller is answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// It is the answer to an earlier request with the same key.
    pub(crate) is_replayed: bool,
}

impl Parts {
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    fn check_token(&self, token: &str) -> Result<(), SagaError> {
        match self.channels.accepts(token) {
            true => Ok(()),
            false => Err(SagaError::UnknownToken {
                token: token.to_owned(),
            }),
        }
    }

    /// What an intent pays for, if anything.
    fn order_of<'a>(&'a self, intent: &'a Intent) -> Option<(&'a dyn Participant, &'a str)> {
        Some((self.participant.as_deref()?, intent.reference.as_deref()?))
    }

    /// When the resolver takes what begins now for abandoned: after the channel's deadline, and time for the second transaction.
    fn abandoned_ms(&self, now_ms: i64) -> i64 {
        const GRACE_MS: i64 = 5_000;
        now_ms + millis(self.times.channel_timeout) + GRACE_MS
    }
}

impl Call {
    fn cause(&self) -> Cause {
        Cause {
            request_id: Some(self.request_id.clone()),
            idempotency_key: self.key.as_ref().map(|key| key.as_str().to_owned()),
        }
    }

    fn key_text(&self) -> Option<&str> {
        self.key.as_ref().map(Key::as_str)
    }
}

impl Reply {
    fn new(answer: Answer) -> Self {
        Self {
            answer,
            is_replayed: false,
        }
    }

    fn replay(answer: Answer) -> Self {
        Self {
            answer,
            is_replayed: true,
        }
    }
}

/// A live charge belongs to an intent in `processing`, and nothing else moves that: the row contradicts this crate.
fn impossible(refused: state::Refused) -> SagaError {
    SagaError::Storage(db::corrupt("intent status", refused.state.as_str()))
}

/// How long to wait before asking a channel again after `tries` questions in vain: a second, each time twice as long, and even a channel
/// that has been silent for a day is asked once an hour.
fn backoff(tries: i64) -> i64 {
    const FIRST_MS: i64 = 1_000;
    const LAST_MS: i64 = 3_600_000;
    (FIRST_MS << tries.clamp(0, 20)).min(LAST_MS)
}

/// A configured span in milliseconds.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_at_doubling_distances_up_to_an_hour() {
        assert_eq!(backoff(0), 1_000);
        assert_eq!(backoff(3), 8_000);
        assert_eq!(backoff(12), 3_600_000);
        assert_eq!(backoff(i64::MAX), 3_600_000);
    }
}
