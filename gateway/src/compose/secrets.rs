//! What must not be kept with an order, as the payment API sees it: `seckill` does not know that crate.

use payment::card_number;
use seckill::api::Secret;

/// A card number or a secret key in a text.
pub(super) fn find_secret(text: &str) -> Option<Secret> {
    match card_number::is_in(text) {
        true => Some(Secret::CardNumber),
        false => card_number::is_key_in(text).then_some(Secret::Key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_and_keys_are_told_apart_from_what_a_shop_sends() {
        let key = format!("sk_live_{}", "x1".repeat(8));
        for (text, found) in [
            ("4242 4242 4242 4242", Some(Secret::CardNumber)),
            (key.as_str(), Some(Secret::Key)),
            ("cart-4242424242424241", None),
            ("de_DE", None),
        ] {
            assert_eq!(find_secret(text), found, "{text}");
        }
    }
}
