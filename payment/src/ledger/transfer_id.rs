//! Names of transfers. Each says what the money moves for, so that a repetition finds the first one.

use std::fmt;

/// The id of a transfer: the caller's own, made from what it is for, so that a repetition finds the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferId(String);

impl TransferId {
    /// The money of a charge, while it is pending.
    pub fn charge(charge: &str) -> Self {
        Self(format!("charge:{charge}"))
    }

    /// The money of a refund on its way back.
    pub fn refund(refund: &str) -> Self {
        Self(format!("refund:{refund}"))
    }

    /// One that a row names.
    pub(crate) fn stored(id: String) -> Self {
        Self(id)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The transfer that resolves this one. It is the same whether it posts or voids: there can be only one.
    pub(super) fn resolution(&self) -> String {
        format!("{}:resolved", self.0)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are rows of databases in use.
    #[test]
    fn names_never_change() {
        assert_eq!(TransferId::charge("ch_1").as_str(), "charge:ch_1");
        assert_eq!(TransferId::refund("re_1").as_str(), "refund:re_1");
        assert_eq!(
            TransferId::charge("ch_1").resolution(),
            "charge:ch_1:resolved"
        );
    }
}
