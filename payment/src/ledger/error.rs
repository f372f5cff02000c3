//! Why the books refuse a move of money.

use super::{AccountId, TransferId};

/// Why a transfer was refused. The transaction must be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The id is taken by a transfer with other content. The caller is at fault.
    #[error("transfer exists with other content id={id}")]
    ExistsDifferent {
        /// The id.
        id: TransferId,
    },
    /// The transfer is in the books already where it must be new. A bug: money would move twice under one id.
    #[error("transfer exists id={id}")]
    Exists {
        /// The id.
        id: TransferId,
    },
    /// The guarded account has less than that, pending counted.
    #[error("account has too little account={account}")]
    OverLimit {
        /// The account.
        account: AccountId,
    },
    /// There is no such pending transfer. The caller is at fault.
    #[error("no pending transfer id={id}")]
    NoSuchPending {
        /// The id.
        id: TransferId,
    },
    /// It was posted where it should be voided, or voided where it should be posted. A bug, or a damaged database.
    #[error("pending transfer was resolved otherwise id={id}")]
    ResolvedOtherwise {
        /// The id.
        id: TransferId,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
}
