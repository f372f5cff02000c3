//! What a caller knows of an order and how long it would wait for a change: out of `If-None-Match`, `Prefer` and the query.
//!
//! The main form is the conditional request: `If-None-Match` with the `ETag` of the last answer, `Prefer: wait=20` (RFC 7240).
//! For the command line there is `?wait=20s&status=reserved`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use settings::units;

use super::super::problem::{Code, Problem};
use crate::ledger::{OrderStatus, Standing};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preference was honoured.
pub(in crate::api) const PREFERENCE_APPLIED: HeaderName =
    HeaderName::from_static("preference-applied");

/// The part of the query that is about waiting.
#[derive(Debug, Default, Deserialize)]
pub(in crate::api) struct WaitQuery {
    wait: Option<String>,
    status: Option<String>,
}

/// What the caller asks for. By default nothing is known, and nobody waits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct WaitParams {
    /// How long it waits for a change.
    pub(in crate::api) wait: Option<Duration>,
    /// The wait as `Prefer` had it, after the bound, in seconds: to be acknowledged.
    pub(in crate::api) applied_s: Option<u64>,
    known: Known,
}

/// What the caller knows.
#[derive(Debug, Default, PartialEq, Eq)]
enum Known {
    /// Nothing: any answer is a change.
    #[default]
    Nothing,
    /// That the order exists (`If-None-Match: *`).
    Existence,
    /// All versions up to this one.
    Version(u64),
    /// A status, by its word; `unknown` if there was no order yet.
    Status(Option<OrderStatus>),
}

impl WaitParams {
    /// Reads a request. A wait in the query beyond `max` is refused, a preferred one is cut to it.
    pub(in crate::api) fn read(
        headers: &HeaderMap,
        query: &WaitQuery,
        max: Duration,
    ) -> Result<Self, Problem> {
        let preferred = preferred_wait(headers).map(|wait| wait.min(max));
        let wait = match query.wait.as_deref() {
            None => preferred,
            Some(text) => match units::duration(text) {
                Some(wait) if wait <= max => Some(wait),
                _ => {
                    let detail = format!(
                        "wait = {text:?}: must be a duration from 0s to {}s, as in 20s or 500ms",
                        max.as_secs()
                    );
                    return Err(Problem::new(Code::InvalidRequest, detail));
                }
            },
        };
        let applied = preferred.filter(|_| query.wait.is_none());
        let known = match (known_version(headers), query.status.as_deref()) {
            (Some(known), _) => known,
            (None, None) => Known::Nothing,
            (None, Some("unknown")) => Known::Status(None),
            (None, Some(word)) => Known::Status(Some(word.parse().map_err(|_| {
                let words = OrderStatus::ALL.map(OrderStatus::as_str).join(", ");
                Problem::new(
                    Code::InvalidRequest,
                    format!("status = {word:?}: must be one of unknown, {words}"),
                )
            })?)),
        };
        Ok(Self {
            wait,
            applied_s: applied.map(|wait| wait.as_secs()),
            known,
        })
    }

    /// Whether this standing is something that the caller does not know.
    pub(in crate::api) fn is_change(&self, standing: Standing) -> bool {
        match self.known {
            Known::Nothing => true,
            Known::Existence => false,
            Known::Version(known) => standing.version > known,
            Known::Status(known) => known != Some(standing.status),
        }
    }

    /// Whether waiting is over: the order has changed, or never will again.
    pub(in crate::api) fn is_answered_by(&self, standing: Standing) -> bool {
        self.is_change(standing) || standing.status.is_final()
    }

    /// Whether the caller has a copy that is still good, so that 304 is the answer.
    pub(in crate::api) fn has_copy_of(&self, standing: Standing) -> bool {
        matches!(self.known, Known::Existence | Known::Version(_)) && !self.is_change(standing)
    }
}

/// The validator of an order as it stands. Weak: the same standing may be written in two ways, before and after settlement.
pub(in crate::api) fn etag(standing: Standing) -> HeaderValue {
    HeaderValue::try_from(format!("W/\"{}\"", standing.version)).expect("digits are visible ASCII")
}

/// `If-None-Match`, compared weakly (RFC 9110 8.8.3.2). Tags that are not ours match nothing.
fn known_version(headers: &HeaderMap) -> Option<Known> {
    let mut known = None;
    for line in headers.get_all(header::IF_NONE_MATCH) {
        for tag in line.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return Some(Known::Existence);
            }
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let version = opaque
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .and_then(|digits| digits.parse::<u64>().ok())
                // Tags are opaque: `"01"` is another one than `"1"`.
                .filter(|version| opaque.len() == version.to_string().len() + 2);
            known = known.max(version);
        }
    }
    known.map(Known::Version)
}

/// `Prefer: wait=N`. A preference that cannot be read is none (RFC 7240 2).
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter();
    let preferences = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    for preference in preferences {
        let preference = preference.split(';').next().unwrap_or_default();
        let Some((name, value)) = preference.split_once('=') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("wait") {
            // The first of several is meant.
            let seconds = value.trim().trim_matches('"').parse().ok();
            return seconds.map(Duration::from_secs);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(30);

    fn read(
        headers: &[(&'static str, &str)],
        wait: &str,
        status: &str,
    ) -> Result<WaitParams, Problem> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let query = WaitQuery {
            wait: some(wait),
            status: some(status),
        };
        WaitParams::read(&map, &query, MAX)
    }

    fn standing(version: u64, status: OrderStatus) -> Standing {
        Standing { version, status }
    }

    #[test]
    fn a_preferred_wait_is_cut_to_the_bound_and_acknowledged() {
        for (value, expected) in [
            ("wait=20", Some(20)),
            ("respond-async, WAIT=\"7\"; x=1", Some(7)),
            ("wait=99999", Some(30)),
            ("wait=0", Some(0)),
            ("wait=soon", None),
            ("wait", None),
            ("wait=-1", None),
        ] {
            let params = read(&[("prefer", value)], "", "").unwrap();
            assert_eq!(params.applied_s, expected, "{value}");
            assert_eq!(params.wait, expected.map(Duration::from_secs), "{value}");
        }
        let both = read(&[("prefer", "wait=20")], "1s", "").unwrap();
        assert_eq!(
            (both.wait, both.applied_s),
            (Some(Duration::from_secs(1)), None)
        );
    }

    #[test]
    fn a_wait_out_of_bounds_and_a_strange_status_are_refused_with_what_is_allowed() {
        for wait in ["31s", "1h", "20", "-1s", "x"] {
            let problem = read(&[], wait, "").unwrap_err();
            assert_eq!(problem.code(), Code::InvalidRequest, "{wait}");
        }
        assert!(read(&[], "30s", "").is_ok());
        assert!(read(&[], "", "lost").is_err());
        assert!(read(&[], "", "unknown").is_ok());
    }

    #[test]
    fn news_is_what_is_later_than_the_tag() {
        let at = |value: &str| read(&[("if-none-match", value)], "", "").unwrap();
        let paying = standing(2, OrderStatus::Paying);
        assert!(at("W/\"1\"").is_change(paying) && at("\"1\"").is_change(paying));
        assert!(at("W/\"2\"").has_copy_of(paying));
        assert!(at("\"0\", W/\"2\"").has_copy_of(paying));
        // Told by another node, a moment ahead of this one: never answered with less.
        assert!(at("W/\"3\"").has_copy_of(paying));
        assert!(at("*").has_copy_of(paying));
        for others in [
            "\"of somebody else\"",
            "\"02\"",
            "\"+2\"",
            "2",
            "\"2",
            "W/2",
            "w/\"2\"",
            "",
        ] {
            assert!(at(others).is_change(paying), "{others}");
        }
    }

    #[test]
    fn a_failed_payment_is_news_by_tag_and_by_word() {
        let again = standing(3, OrderStatus::Reserved);
        assert!(
            read(&[("if-none-match", "W/\"2\"")], "", "")
                .unwrap()
                .is_change(again)
        );
        assert!(read(&[], "", "paying").unwrap().is_change(again));
        assert!(!read(&[], "", "reserved").unwrap().is_change(again));
    }

    #[test]
    fn a_final_status_is_answered_at_once() {
        let paid = standing(4, OrderStatus::Paid);
        let params = read(&[("if-none-match", "W/\"4\"")], "20s", "").unwrap();
        assert!(!params.is_change(paid) && params.is_answered_by(paid));
    }
}
