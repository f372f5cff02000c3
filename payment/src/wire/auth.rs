//! Who is asking: the secret key, as a bearer token or as the user of HTTP Basic, compared in constant time.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::AUTHORIZATION};
use ring::{
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
};

use super::WireError;
use crate::secret::Secret;

/// Knows the right key without keeping it: both sides of the comparison are MACs under a key drawn at start.
pub(crate) struct Auth {
    mac: hmac::Key,
    expected: hmac::Tag,
}

impl Auth {
    pub(crate) fn new(api_key: &Secret) -> Self {
        let mac = hmac::Key::generate(HMAC_SHA256, &SystemRandom::new())
            .expect("the operating system has randomness");
        let expected = hmac::sign(&mac, api_key.expose().as_bytes());
        Self { mac, expected }
    }

    /// Lets the request pass, or says what is wrong without repeating what was sent.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), WireError> {
        let unauthorized = |message: &str| {
            Err(WireError::Unauthorized {
                message: message.to_owned(),
            })
        };
        let Some(header) = headers.get(AUTHORIZATION) else {
            return unauthorized(
                "You did not provide an API key. Provide it in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            );
        };
        let Some(key) = header.to_str().ok().and_then(presented) else {
            return unauthorized(
                "The Authorization header is neither 'Bearer YOUR_SECRET_KEY' nor Basic auth with the key as the user name.",
            );
        };
        if hmac::verify(&self.mac, &key, self.expected.as_ref()).is_err() {
            return unauthorized(&format!("Invalid API Key provided: {}", masked(&key)));
        }
        Ok(())
    }
}

/// A key that nobody can use any more but its owner can tell from others: its beginning, stars, its last four characters.
fn masked(key: &[u8]) -> String {
    const KEPT: usize = 4;
    let text = String::from_utf8_lossy(key);
    let is_key = text.len() >= 16 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    // Whatever else was sent may be somebody's password.
    if !is_key {
        return "*".repeat(8);
    }
    let begin = [
        "sk_test_", "sk_live_", "pk_test_", "pk_live_", "rk_test_", "rk_live_",
    ]
    .into_iter()
    .find(|prefix| text.starts_with(prefix))
    .unwrap_or_default();
    let stars = "*".repeat(text.len() - begin.len() - KEPT);
    format!("{begin}{stars}{}", &text[text.len() - KEPT..])
}

fn presented(header: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = STANDARD.decode(rest.trim()).ok()?;
    if let Some(colon) = user.iter().position(|b| *b == b':') {
        user.truncate(colon);
    }
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(header: &str) -> bool {
        let auth = Auth::new(&Secret::new("sk_test_1".into()));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        auth.check(&headers).is_ok()
    }

    #[test]
    fn the_key_opens_as_bearer_and_as_basic_user() {
        assert!(is_let_in("Bearer sk_test_1"));
        assert!(is_let_in("bearer sk_test_1"));
        assert!(is_let_in(&format!(
            "Basic {}",
            STANDARD.encode("sk_test_1:")
        )));
    }

    #[test]
    fn a_wrong_key_is_shown_masked() {
        assert_eq!(
            masked(b"sk_test_0123456789abcdef"),
            "sk_test_************cdef"
        );
        assert_eq!(masked(b"hunter2"), "********");
        assert_eq!(masked("密码密码密码密码".as_bytes()), "********");
    }

    #[test]
    fn anything_else_does_not() {
        for header in [
            "Bearer sk_test_2",
            "Bearer sk_test_11",
            "Bearer ",
            "Bearer",
            "sk_test_1",
            "Basic !!!",
            "Basic ",
        ] {
            assert!(!is_let_in(header), "{header}");
        }
        let auth = Auth::new(&Secret::new("sk_test_1".into()));
        assert!(auth.check(&HeaderMap::new()).is_err());
    }
}
