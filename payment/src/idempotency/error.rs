//! Why a key does not lead to an answer.

use crate::db::MayRetry;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The caller's key is too long, empty, or not visible ASCII.
    #[error("a key is 1 to {} visible ASCII characters", super::MAX_KEY)]
    Malformed,
    /// The first request with this key is still at work. The caller sends it again in a moment.
    #[error("another request with this key is in progress")]
    InUse,
    /// The caller has used the key for another request, and must take a new one.
    #[error("the key was used for another request")]
    Reused { key: String },
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}

impl MayRetry for KeyError {
    fn may_retry(&self) -> bool {
        match self {
            Self::Storage(error) => error.may_retry(),
            Self::Malformed | Self::InUse | Self::Reused { .. } => false,
        }
    }
}
