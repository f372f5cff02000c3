//! The chart of accounts. An account exists by being named; only guarded ones keep a balance row.

use std::fmt;

use crate::money::Currency;

/// The merchant's account is cut into this many, so that concurrent payments seldom wait for one row. All that concerns one
/// intent goes through one slot, so each slot can be guarded by itself.
const MERCHANT_SLOTS: u32 = 16;

/// One account of one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountId(String);

impl AccountId {
    /// What a channel owes us. Not guarded: a channel may take back more than it holds, and then we owe it.
    pub fn channel(name: &str, currency: Currency) -> Self {
        Self(format!("channel:{name}:{currency}"))
    }

    /// What we owe the merchant, in the slot of `intent`. Guarded: what was not earned cannot be given back.
    pub fn merchant(intent: &str, currency: Currency) -> Self {
        // The last characters of an id are its random ones; any spread will do, as long as it never changes.
        let sum = intent
            .bytes()
            .fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        Self(format!("merchant:{:02}:{currency}", sum % MERCHANT_SLOTS))
    }

    /// An account named in a stored transfer.
    pub(super) fn stored(id: String) -> Self {
        Self(id)
    }

    /// Whether it may never fall below zero.
    pub fn is_guarded(&self) -> bool {
        self.0.starts_with("merchant:")
    }

    /// The id as stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_spread_over_all_slots_and_stay_in_theirs() {
        let usd = Currency::from_code("usd").unwrap();
        let slots: std::collections::HashSet<_> = (0..1000)
            .map(|n| AccountId::merchant(&format!("pi_{n}"), usd).0)
            .collect();
        assert_eq!(slots.len(), MERCHANT_SLOTS as usize);
        assert_eq!(
            AccountId::merchant("pi_1", usd),
            AccountId::merchant("pi_1", usd)
        );
    }

    #[test]
    fn only_the_merchant_is_guarded() {
        let usd = Currency::from_code("usd").unwrap();
        assert!(AccountId::merchant("pi_1", usd).is_guarded());
        assert!(!AccountId::channel("simulator", usd).is_guarded());
    }
}
