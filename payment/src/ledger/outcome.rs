//! What became of a move of money, and the checks that a caller makes of it.

use super::{LedgerError, TransferId};

/// What became of a new pending transfer.
#[must_use = "a transfer that was there before may have been resolved since"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the books.
    Created,
    /// The very same one already was.
    Exists,
}

impl Recorded {
    /// The transfer is new. One that was there before belongs to another move of money, or this move is made twice.
    pub fn created(self, id: &TransferId) -> Result<(), LedgerError> {
        match self {
            Self::Created => Ok(()),
            Self::Exists => Err(LedgerError::Exists { id: id.clone() }),
        }
    }
}

/// What became of posting or voiding.
#[must_use = "a transfer that was resolved the other way before has moved no money"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Done now.
    Done,
    /// It was posted before; nothing changed.
    AlreadyPosted,
    /// It was voided before; nothing changed.
    AlreadyVoided,
}

impl Resolved {
    /// The money has moved, now or before.
    pub fn posted(self, id: &TransferId) -> Result<(), LedgerError> {
        match self {
            Self::Done | Self::AlreadyPosted => Ok(()),
            Self::AlreadyVoided => Err(LedgerError::ResolvedOtherwise { id: id.clone() }),
        }
    }

    /// The money has not moved, and will not.
    pub fn voided(self, id: &TransferId) -> Result<(), LedgerError> {
        match self {
            Self::Done | Self::AlreadyVoided => Ok(()),
            Self::AlreadyPosted => Err(LedgerError::ResolvedOtherwise { id: id.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_that_went_the_other_way_is_an_error() {
        let id = TransferId::charge("ch_1");
        assert!(Recorded::Created.created(&id).is_ok());
        assert!(Recorded::Exists.created(&id).is_err());
        for (resolved, is_posted, is_voided) in [
            (Resolved::Done, true, true),
            (Resolved::AlreadyPosted, true, false),
            (Resolved::AlreadyVoided, false, true),
        ] {
            assert_eq!(resolved.posted(&id).is_ok(), is_posted, "{resolved:?}");
            assert_eq!(resolved.voided(&id).is_ok(), is_voided, "{resolved:?}");
        }
    }
}
