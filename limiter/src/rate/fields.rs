//! The response fields that tell a client about its bucket: `Retry-After` (RFC 9110) and the IETF's `RateLimit` and
//! `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers). Values only; which answers carry them is the caller's choice.

use std::time::Duration;

use http::HeaderValue;

use super::{Limited, RateQuota};

/// `Retry-After`: whole seconds, rounded up and never 0. A client told 0 comes back at once and is refused again.
pub fn retry_after_field(wait: Duration) -> HeaderValue {
    HeaderValue::from(whole_seconds(wait))
}

/// `RateLimit-Policy: "name";q=200;w=2`: a bucket of 200 that fills in two seconds.
pub fn policy_field(name: &str, quota: RateQuota) -> HeaderValue {
    let seconds = whole_seconds(quota.fill_time());
    value(format!("{};q={};w={seconds}", quoted(name), quota.burst()))
}

/// `RateLimit: "name";r=57`: what the bucket still holds.
pub fn remaining_field(name: &str, remaining: u32) -> HeaderValue {
    value(format!("{};r={remaining}", quoted(name)))
}

impl Limited {
    /// `RateLimit: "name";r=0;t=3`: nothing left, the next request fits in three seconds.
    pub fn field(&self, name: &str) -> HeaderValue {
        let seconds = whole_seconds(self.retry_after);
        value(format!("{};r=0;t={seconds}", quoted(name)))
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).max(1) as u64
}

/// A structured-field string: printable ASCII, quotes and backslashes escaped, anything else left out.
fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for c in name.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("quoted names and numbers are visible ASCII")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn quota() -> RateQuota {
        let count = |count| NonZeroU32::new(count).unwrap();
        RateQuota::try_new(count(100), Duration::from_secs(1), count(150)).unwrap()
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (wait_ms, said) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            assert_eq!(retry_after_field(Duration::from_millis(wait_ms)), said);
        }
    }

    #[test]
    fn fields_are_written_as_the_draft_says() {
        assert_eq!(policy_field("per-ip", quota()), "\"per-ip\";q=150;w=2");
        assert_eq!(remaining_field("per-ip", 57), "\"per-ip\";r=57");
        let limited = Limited {
            retry_after: Duration::from_millis(2500),
            quota: quota(),
        };
        assert_eq!(limited.field("per-ip"), "\"per-ip\";r=0;t=3");
    }

    #[test]
    fn names_cannot_break_out_of_the_field() {
        assert_eq!(remaining_field("a\"b\\c\r\né", 1), "\"a\\\"b\\\\c\";r=1");
    }
}
