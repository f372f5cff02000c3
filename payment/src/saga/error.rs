//! How a request can end without what it asked for.
//!
//! A [`Refusal`] is an answer like any other: it is final and kept under the request's key. A [`SagaError`] is not: a mistake may be
//! corrected and sent again, and what passes by itself may be sent again as it is.

use crate::{
    channels::ChannelError,
    db::MayRetry,
    idempotency::KeyError,
    intents::{Decline, Intent, IntentError},
    ledger::LedgerError,
    participant::OrderError,
};

/// The final answer to a request that is not done.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The intent is in no state to be charged.
    CannotConfirm { intent: Box<Intent> },
    /// Money may be moving, or the intent is over.
    CannotCancel { intent: Box<Intent> },
    /// The order ran out or was cancelled. Nothing was charged, or it was all given back.
    OrderReleased {
        /// The intent as it is; none if it was not made at all.
        intent: Option<Box<Intent>>,
    },
    /// The order is paid already.
    OrderPaid,
    /// The channel refused. The buyer must use another card.
    Declined {
        decline: Box<Decline>,
        /// The intent, ready for another try.
        intent: Box<Intent>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SagaError {
    /// No channel takes the caller's token.
    #[error("no channel takes the payment method")]
    UnknownToken { token: String },
    /// The caller wants a charge and names nothing to charge.
    #[error("there is no payment method to charge")]
    MissingToken,
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Intent(IntentError),
    #[error(transparent)]
    Key(KeyError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The books refused, which the saga makes impossible: a bug or a damaged database.
    #[error("ledger: {0}")]
    Ledger(LedgerError),
    /// The database failed. What was asked may be done later, by the resolver.
    #[error("storage: {0}")]
    Storage(#[from] sqlx::Error),
}

// A failing database is one thing, wherever it was met.

impl From<IntentError> for SagaError {
    fn from(error: IntentError) -> Self {
        match error {
            IntentError::Storage(error) => Self::Storage(error),
            other => Self::Intent(other),
        }
    }
}

impl From<KeyError> for SagaError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Storage(error) => Self::Storage(error),
            other => Self::Key(other),
        }
    }
}

impl From<LedgerError> for SagaError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Storage(error) => Self::Storage(error),
            other => Self::Ledger(other),
        }
    }
}

impl MayRetry for SagaError {
    fn may_retry(&self) -> bool {
        match self {
            Self::Storage(error) => error.may_retry(),
            Self::Intent(error) => error.may_retry(),
            Self::Key(error) => error.may_retry(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{IdSource, IntentId};

    #[test]
    fn a_failing_database_is_storage_wherever_it_was_met() {
        let of = |error: SagaError| matches!(error, SagaError::Storage(_));
        assert!(of(IntentError::Storage(sqlx::Error::PoolTimedOut).into()));
        assert!(of(KeyError::Storage(sqlx::Error::PoolTimedOut).into()));
        assert!(of(LedgerError::Storage(sqlx::Error::PoolTimedOut).into()));
    }

    #[test]
    fn only_lost_races_are_run_again() {
        let id = IntentId::draw(&IdSource::new([1; 32]), 1);
        assert!(SagaError::from(IntentError::Contended { id: id.clone() }).may_retry());
        assert!(!SagaError::from(IntentError::NoSuch { id }).may_retry());
        assert!(!SagaError::from(KeyError::InUse).may_retry());
        assert!(!SagaError::MissingToken.may_retry());
    }
}
