//! Stripe's JSON objects, one file each.

pub(crate) mod charge;
pub(crate) mod intent;
pub(crate) mod list;
pub(crate) mod payment_method;

/// Where Stripe's documentation explains a code.
pub(crate) fn doc_url(code: &str) -> String {
    format!(
        "https://stripe.com/docs/error-codes/{}",
        code.replace('_', "-")
    )
}

pub(crate) fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_and_codes_have_a_page() {
        assert_eq!((seconds(1_999), seconds(-1)), (1, -1));
        assert!(doc_url("card_declined").ends_with("/card-declined"));
    }
}
