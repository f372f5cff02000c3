//! `[[limit]]`: token buckets that routes name.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use http::HeaderName;
use limiter::rate::RateQuota;
use settings::{
    Section,
    units::{self, Rate},
};

use super::values::name;

/// 24 bytes each, allocated at start: 1.5 MiB.
const MAX_KEYS: usize = 65_536;

/// `[[limit]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name in routes, metrics and response fields.
    pub name: String,
    /// Whose bucket.
    pub key: LimitKey,
    /// Speed and size of the bucket.
    pub quota: RateQuota,
    /// Buckets held at a time.
    pub max_keys: usize,
    /// Whether allowed answers carry the `RateLimit` field too.
    pub report: bool,
}

/// Whose bucket a request draws from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address; one IPv6 /64 is one client.
    Ip,
    /// A header's first value; the client's address where it is missing.
    Header(HeaderName),
    /// The buyer as `[seckill] buyer` finds them, proven; the client's address where there is none.
    Buyer,
}

impl FromStr for LimitKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "ip" => Ok(Self::Ip),
            None if text == "buyer" => Ok(Self::Buyer),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

pub(super) fn limits(root: &Section<'_>) -> Vec<Limit> {
    root.sections("limit").into_iter().map(limit).collect()
}

fn limit(section: Section<'_>) -> Limit {
    let key = section.parsed("key", "ip, buyer or header:NAME", |text| text.parse().ok());
    section.require("rate", units::RATE);
    let rate = section.rate("rate").unwrap_or(Rate {
        count: NonZeroU32::MIN,
        per: Duration::from_secs(1),
    });
    // Without a burst the bucket holds what the rate's own time span brings.
    let burst = section
        .integer("burst", 1..=u32::MAX)
        .and_then(NonZeroU32::new)
        .unwrap_or(rate.count);
    let one_a_second = || {
        RateQuota::try_new(NonZeroU32::MIN, Duration::from_secs(1), NonZeroU32::MIN)
            .expect("one a second is within the range")
    };
    let quota = RateQuota::try_new(rate.count, rate.per, burst).unwrap_or_else(|error| {
        section.problem("rate", error);
        one_a_second()
    });
    let limit = Limit {
        name: name(&section, None).unwrap_or_default(),
        key: key.unwrap_or(LimitKey::Ip),
        quota,
        max_keys: section
            .integer("max_keys", 8..=100_000_000)
            .unwrap_or(MAX_KEYS),
        report: section.flag("report").unwrap_or(false),
    };
    section.finish();
    limit
}
