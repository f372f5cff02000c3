//! Why an intent cannot be read or written.

use crate::{db::MayRetry, ids::IntentId};

#[derive(Debug, thiserror::Error)]
pub(crate) enum IntentError {
    /// The caller names an intent that was never made.
    #[error("no such intent id={id}")]
    NoSuch { id: IntentId },
    /// The caller names the secret of another intent.
    #[error("the client secret is not the intent's")]
    WrongSecret,
    /// Somebody else changed the intent between its read and its write. Run the transaction again.
    #[error("the intent was changed at the same time id={id}")]
    Contended { id: IntentId },
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

impl MayRetry for IntentError {
    fn may_retry(&self) -> bool {
        match self {
            Self::Contended { .. } => true,
            Self::Storage(error) => error.may_retry(),
            Self::NoSuch { .. } | Self::WrongSecret => false,
        }
    }
}
