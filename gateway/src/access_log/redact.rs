//! What must not be kept is taken out of text before it is written: card numbers, secret keys and client secrets that somebody put
//! into a path. Used by the access log.

use std::borrow::Cow;

use payment::card_number;

/// What stands where something was taken out.
const REDACTED: &str = "[redacted]";

/// Beginnings of secret keys, and what a payment intent's client secret has in its middle.
const SECRETS: [&str; 6] = [
    "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "_secret_",
];

/// The path without the segments that hold a secret; all of it goes if a secret is spread over several.
pub(super) fn path(path: &str) -> Cow<'_, str> {
    // Nearly every path: no digit group that could be a card's, nothing like a key.
    let digits = path.bytes().filter(u8::is_ascii_digit).count();
    let may_hold_secret = path.contains('_') || path.contains('%');
    if digits < card_number::MIN && !may_hold_secret {
        return Cow::Borrowed(path);
    }
    if !holds_secret(path) {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| {
            if holds_secret(segment) {
                REDACTED
            } else {
                segment
            }
        })
        .collect();
    let cleaned = segments.join("/");
    match holds_secret(&cleaned) {
        true => Cow::Borrowed("/[redacted]"),
        false => Cow::Owned(cleaned),
    }
}

fn holds_secret(text: &str) -> bool {
    let decoded: String = percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .chars()
        .map(|c| match c {
            '/' | ',' | ';' | ':' | '=' | '\u{a0}' => ' ',
            c => c.to_ascii_lowercase(),
        })
        .collect();
    // In a path nothing is lost by taking a long number for a card's, so letters beside it do not save it.
    let digits_only: String = decoded
        .chars()
        .map(|c| if c.is_alphabetic() { ' ' } else { c })
        .collect();
    SECRETS.iter().any(|secret| decoded.contains(secret))
        || card_number::is_in(&decoded)
        || card_number::is_in(&digits_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_card_numbers_are_taken_out() {
        for (written, kept) in [
            ("/pay/4242424242424242", "/pay/[redacted]"),
            ("/pay/4242%204242%204242%204242/x", "/pay/[redacted]/x"),
            ("/pay/%34242424242424242", "/pay/[redacted]"),
            ("/pay/4242/4242/4242/4242", "/[redacted]"),
            ("/v1/sk_test_0123456789", "/v1/[redacted]"),
            ("/v1/SK_LIVE_0123456789/x", "/v1/[redacted]/x"),
            ("/v1/sk%5flive_0123456789", "/v1/[redacted]"),
            ("/pi_1_secret_abc", "/[redacted]"),
            ("/a;card=4242424242424242", "/[redacted]"),
            ("/shop/x4242424242424242", "/shop/[redacted]"),
            ("/shop/4242_4242_4242_4242", "/shop/[redacted]"),
            ("/shop/00004242424242424242", "/shop/[redacted]"),
            ("/v1/pm_4242424242424242", "/v1/[redacted]"),
        ] {
            assert_eq!(path(written), kept, "{written}");
        }
    }

    #[test]
    fn other_paths_stay() {
        for text in [
            "/",
            "/v1/orders/ord_01m7yh0f7kxzynk51ksqsxanvr",
            "/2026/11/29/post-1234567",
            "/v1/payment_intents/pi_3MtwBwLkdIwHu7ix28a3tqPa",
        ] {
            assert!(
                matches!(path(text), Cow::Borrowed(kept) if kept == text),
                "{text}"
            );
        }
    }
}
