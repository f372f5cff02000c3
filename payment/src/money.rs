//! Amounts: integer minor units of an ISO 4217 currency, checked arithmetic, no floats.
//!
//! The wire speaks Stripe's units, which are ISO's minor units but for a handful of currencies; [`Money::from_wire`] and
//! [`Money::to_wire`] are the only places that know the difference.

use std::fmt;

/// The largest amount the wire takes: Stripe's "up to eight digits".
pub const MAX_WIRE_AMOUNT: i64 = 99_999_999;

/// An ISO 4217 currency. Obtained by name only, so a `Currency` is always a real one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u8,
}

impl Currency {
    /// The currency of a lower- or upper-case three-letter code.
    pub fn from_code(code: &str) -> Option<Self> {
        let lower = code.to_ascii_lowercase();
        let index = CODES.binary_search(&lower.as_str()).ok()?;
        let code = CODES[index];
        let exponent = match code {
            c if ZERO_DECIMAL.contains(&c) => 0,
            c if THREE_DECIMAL.contains(&c) => 3,
            _ => 2,
        };
        Some(Self { code, exponent })
    }

    /// The lower-case code, as Stripe writes it.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// ISO 4217 decimal places: 2 for most, 0 for yen, 3 for the Kuwaiti dinar.
    pub fn exponent(self) -> u8 {
        self.exponent
    }

    /// How one wire unit relates to one ISO minor unit.
    fn wire(self) -> Wire {
        match self.code {
            // Zero-decimal in ISO, but Stripe keeps two places for compatibility and wants them to be 00.
            "isk" | "ugx" => Wire::Hundredths,
            // Two places in ISO (a fifth of an ariary), none on Stripe's wire.
            "mga" => Wire::Whole,
            // Stripe takes three places but settles in two: the last digit must be 0.
            _ if self.exponent == 3 => Wire::Tens,
            _ => Wire::Minor,
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

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
        self.same_currency(other)?;
        let minor = self
            .minor
            .checked_add(other.minor)
            .ok_or(MoneyError::TooLarge)?;
        Ok(Self { minor, ..self })
    }

    /// The difference, if it is of one currency and not below zero.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        if other.minor > self.minor {
            return Err(MoneyError::Negative);
        }
        Ok(Self {
            minor: self.minor - other.minor,
            ..self
        })
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(MoneyError::CurrencyMismatch)
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_i64.pow(u32::from(self.currency.exponent));
        let width = usize::from(self.currency.exponent);
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

/// How the wire counts a currency.
enum Wire {
    /// Wire units are ISO minor units.
    Minor,
    /// ISO minor units that must be multiples of ten.
    Tens,
    /// A hundred wire units are one ISO minor unit.
    Hundredths,
    /// One wire unit is a hundred ISO minor units.
    Whole,
}

const ZERO_DECIMAL: &[&str] = &[
    "bif", "clp", "djf", "gnf", "isk", "jpy", "kmf", "krw", "pyg", "rwf", "ugx", "vnd", "vuv",
    "xaf", "xof", "xpf",
];

const THREE_DECIMAL: &[&str] = &["bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"];

/// Sorted, for binary search; a test pins the order.
const CODES: &[&str] = &[
    "aed", "afn", "all", "amd", "ang", "aoa", "ars", "aud", "awg", "azn", "bam", "bbd", "bdt",
    "bgn", "bhd", "bif", "bmd", "bnd", "bob", "brl", "bsd", "btn", "bwp", "byn", "bzd", "cad",
    "cdf", "chf", "clp", "cny", "cop", "crc", "cup", "cve", "czk", "djf", "dkk", "dop", "dzd",
    "egp", "ern", "etb", "eur", "fjd", "fkp", "gbp", "gel", "ghs", "gip", "gmd", "gnf", "gtq",
    "gyd", "hkd", "hnl", "htg", "huf", "idr", "ils", "inr", "iqd", "irr", "isk", "jmd", "jod",
    "jpy", "kes", "kgs", "khr", "kmf", "kpw", "krw", "kwd", "kyd", "kzt", "lak", "lbp", "lkr",
    "lrd", "lsl", "lyd", "mad", "mdl", "mga", "mkd", "mmk", "mnt", "mop", "mru", "mur", "mvr",
    "mwk", "mxn", "myr", "mzn", "nad", "ngn", "nio", "nok", "npr", "nzd", "omr", "pab", "pen",
    "pgk", "php", "pkr", "pln", "pyg", "qar", "ron", "rsd", "rub", "rwf", "sar", "sbd", "scr",
    "sdg", "sek", "sgd", "shp", "sle", "sos", "srd", "ssp", "stn", "svc", "syp", "szl", "thb",
    "tjs", "tmt", "tnd", "top", "try", "ttd", "twd", "tzs", "uah", "ugx", "usd", "uyu", "uzs",
    "ves", "vnd", "vuv", "wst", "xaf", "xcd", "xcg", "xof", "xpf", "yer", "zar", "zmw", "zwg",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).unwrap()
    }

    #[test]
    fn codes_are_sorted_and_the_exponent_lists_are_among_them() {
        assert!(CODES.windows(2).all(|pair| pair[0] < pair[1]));
        for code in ZERO_DECIMAL.iter().chain(THREE_DECIMAL) {
            assert!(CODES.binary_search(code).is_ok(), "{code}");
        }
    }

    #[test]
    fn currencies_have_their_iso_exponent_and_unknown_ones_do_not_exist() {
        assert_eq!(currency("usd").exponent(), 2);
        assert_eq!(currency("USD").code(), "usd");
        assert_eq!(currency("jpy").exponent(), 0);
        assert_eq!(currency("kwd").exponent(), 3);
        assert_eq!(Currency::from_code("xxx"), None);
        assert_eq!(Currency::from_code(""), None);
        assert_eq!(Currency::from_code("ǆ"), None);
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
        assert_eq!(a.checked_sub(b), Err(MoneyError::CurrencyMismatch));
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
                    prop_assert_eq!(total.checked_sub(y).unwrap(), x);
                }
                None => prop_assert_eq!(x.checked_add(y), Err(MoneyError::TooLarge)),
            }
        }

        #[test]
        fn subtraction_never_goes_below_zero(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let usd = currency("usd");
            let (x, y) = (Money::try_new(a, usd).unwrap(), Money::try_new(b, usd).unwrap());
            prop_assert_eq!(x.checked_sub(y).is_ok(), a >= b);
        }

        #[test]
        fn the_wire_round_trips(amount in 1..=MAX_WIRE_AMOUNT, index in 0..CODES.len()) {
            let money = Money::from_wire(amount, currency(CODES[index]));
            if let Ok(money) = money {
                prop_assert_eq!(money.to_wire(), amount);
            }
        }
    }
}
