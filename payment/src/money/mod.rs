//! Amounts: integer minor units of an ISO 4217 currency, checked arithmetic, no floats.
//!
//! Stripe's units are ISO's minor units but for a handful of currencies. [`Money::from_wire`] and [`Money::to_wire`] are the only places
//! that know the difference.

mod currency;

use std::fmt;

pub use self::currency::Currency;
use self::currency::Wire;

/// The largest amount the wire takes: Stripe's "up to eight digits".
pub const MAX_WIRE_AMOUNT: i64 = 99_999_999;

/// A non-negative amount of one currency, in ISO minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// Nothing, in `currency`.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// `minor` units; a negative amount is not money.
    pub fn try_new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if minor < 0 {
            return Err(MoneyError::Negative);
        }
        Ok(Self { minor, currency })
    }

    /// The amount a request named, in Stripe's units: at least 1, at most [`MAX_WIRE_AMOUNT`].
    pub fn from_wire(amount: i64, currency: Currency) -> Result<Self, MoneyError> {
        if amount < 1 {
            return Err(MoneyError::TooSmall);
        }
        if amount > MAX_WIRE_AMOUNT {
            return Err(MoneyError::TooLarge);
        }
        let minor = match currency.wire() {
            Wire::Minor => amount,
            Wire::Tens if amount % 10 == 0 => amount,
            Wire::Tens => return Err(MoneyError::NotMultiple { of: 10 }),
            Wire::Hundredths if amount % 100 == 0 => amount / 100,
            Wire::Hundredths => return Err(MoneyError::NotMultiple { of: 100 }),
            Wire::Whole => amount.checked_mul(100).ok_or(MoneyError::TooLarge)?,
        };
        Ok(Self { minor, currency })
    }

    /// The amount in Stripe's units; the inverse of [`Money::from_wire`].
    pub fn to_wire(self) -> i64 {
        match self.currency.wire() {
            Wire::Minor | Wire::Tens => self.minor,
            Wire::Hundredths => self.minor.saturating_mul(100),
            Wire::Whole => self.minor / 100,
        }
    }

    /// ISO minor units.
    pub fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// The sum, if it is of one currency and fits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        let minor = self
            .minor
            .checked_add(other.minor)
            .ok_or(MoneyError::TooLarge)?;
        Ok(Self { minor, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_i64.pow(u32::from(self.currency.exponent()));
        let width = usize::from(self.currency.exponent());
        if width == 0 {
            return write!(f, "{} {}", self.minor, self.currency);
        }
        let (whole, rest) = (self.minor / scale, self.minor % scale);
        write!(f, "{whole}.{rest:0width$} {}", self.currency)
    }
}

/// Why an amount is not money. The caller's input is at fault in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Less than one unit.
    #[error("amount must be at least 1")]
    TooSmall,
    /// Past [`MAX_WIRE_AMOUNT`], or past what the integer holds.
    #[error("amount is too large")]
    TooLarge,
    /// The currency has no unit this small; the amount must be a multiple of `of`.
    #[error("amount must be a multiple of {of}")]
    NotMultiple {
        /// The step.
        of: i64,
    },
    /// Below zero.
    #[error("amount is negative")]
    Negative,
    /// Two currencies in one sum.
    #[error("amounts are of different currencies")]
    CurrencyMismatch,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).unwrap()
    }

    #[test]
    fn wire_units_follow_stripe_where_it_differs_from_iso() {
        let usd = Money::from_wire(1999, currency("usd")).unwrap();
        assert_eq!((usd.minor(), usd.to_wire()), (1999, 1999));
        let isk = Money::from_wire(500, currency("isk")).unwrap();
        assert_eq!((isk.minor(), isk.to_wire()), (5, 500));
        let mga = Money::from_wire(7, currency("mga")).unwrap();
        assert_eq!((mga.minor(), mga.to_wire()), (700, 7));
        assert_eq!(
            Money::from_wire(501, currency("ugx")),
            Err(MoneyError::NotMultiple { of: 100 })
        );
        assert_eq!(
            Money::from_wire(1001, currency("kwd")),
            Err(MoneyError::NotMultiple { of: 10 })
        );
    }

    #[test]
    fn amounts_outside_the_wire_range_are_refused() {
        let usd = currency("usd");
        assert_eq!(Money::from_wire(0, usd), Err(MoneyError::TooSmall));
        assert_eq!(Money::from_wire(-1, usd), Err(MoneyError::TooSmall));
        assert_eq!(Money::from_wire(i64::MAX, usd), Err(MoneyError::TooLarge));
        assert!(Money::from_wire(MAX_WIRE_AMOUNT, usd).is_ok());
        assert_eq!(Money::try_new(-1, usd), Err(MoneyError::Negative));
    }

    #[test]
    fn amounts_print_with_their_decimals() {
        let show = |minor, code| Money::try_new(minor, currency(code)).unwrap().to_string();
        assert_eq!(show(1999, "usd"), "19.99 usd");
        assert_eq!(show(5, "kwd"), "0.005 kwd");
        assert_eq!(show(700, "jpy"), "700 jpy");
    }

    #[test]
    fn two_currencies_never_add_up() {
        let a = Money::try_new(1, currency("usd")).unwrap();
        let b = Money::try_new(1, currency("eur")).unwrap();
        assert_eq!(a.checked_add(b), Err(MoneyError::CurrencyMismatch));
    }

    proptest! {
        #[test]
        fn addition_is_exact_or_refused(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let usd = currency("usd");
            let (x, y) = (Money::try_new(a, usd).unwrap(), Money::try_new(b, usd).unwrap());
            match a.checked_add(b) {
                Some(sum) => {
                    let total = x.checked_add(y).unwrap();
                    prop_assert_eq!(total.minor(), sum);
                }
                None => prop_assert_eq!(x.checked_add(y), Err(MoneyError::TooLarge)),
            }
        }

        #[test]
        fn the_wire_round_trips(amount in 1..=MAX_WIRE_AMOUNT, index in 0..super::currency::CODES.len()) {
            let money = Money::from_wire(amount, currency(super::currency::CODES[index]));
            if let Ok(money) = money {
                prop_assert_eq!(money.to_wire(), amount);
            }
        }
    }
}
