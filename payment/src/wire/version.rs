//! `Stripe-Version`: one version is spoken here, and older ones are close enough. What is no version is a mistake.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{WireError, echo::echo};

pub(super) static STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// For callers that name none.
const VERSION: &str = "2026-06-24.dahlia";

/// Refuses what is no version: `2026-06-24`, with or without the name of its release behind a dot, is one.
pub(super) fn check(headers: &HeaderMap) -> Result<(), WireError> {
    let Some(value) = headers.get(&STRIPE_VERSION) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    match is_version(&text) {
        true => Ok(()),
        false => Err(WireError::param(
            None,
            "Stripe-Version",
            format!("Invalid Stripe API version: {}", echo(&text)),
        )),
    }
}

/// The caller's version, or ours if theirs is none.
pub(super) fn spoken(headers: &HeaderMap) -> HeaderValue {
    let named = headers.get(&STRIPE_VERSION);
    let named = named.filter(|value| is_version(&String::from_utf8_lossy(value.as_bytes())));
    named.cloned().unwrap_or(HeaderValue::from_static(VERSION))
}

fn is_version(text: &str) -> bool {
    let (date, release) = text.split_once('.').unwrap_or((text, "x"));
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let is_release = !release.is_empty() && release.bytes().all(|b| b.is_ascii_lowercase());
    is_date && is_release
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_date_and_perhaps_a_name() {
        assert!(is_version("2026-06-24.dahlia") && is_version("2020-08-27"));
        for other in ["latest", "2026-06", "2026-06-24.", "2026-06-24.X", ""] {
            assert!(!is_version(other), "{other}");
        }
    }
}
