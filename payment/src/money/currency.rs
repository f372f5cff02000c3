//! The currencies of ISO 4217, their decimal places, and how Stripe's wire counts them.

use std::fmt;

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
    pub(super) fn wire(self) -> Wire {
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

/// How the wire counts a currency.
pub(super) enum Wire {
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
pub(super) const CODES: &[&str] = &[
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
}
