//! The shop's own endpoint: a signed webhook with a limit of its own.

use std::num::{NonZeroU32, NonZeroUsize};

use limiter::rate::RateQuota;
use settings::{Inputs, Section, units::Rate};

use super::{Address, SCHEMES};
use crate::{config::SECRET_MIN, downstream::HttpOptions};

/// A shop in a sale has its own visitors too; this many more requests should not be felt.
const RATE: Rate = Rate {
    count: BURST,
    per: std::time::Duration::from_secs(1),
};
const BURST: NonZeroU32 = NonZeroU32::new(100).expect("it is not zero");
/// At 100 ms an answer this is 160 a second, above the rate.
const IN_FLIGHT: usize = 16;
const IN_FLIGHT_MAX: usize = 1024;

pub(super) fn read(
    section: &Section<'_>,
    address: &Address<'_>,
    inputs: &Inputs<'_>,
) -> Option<HttpOptions> {
    let url = format!("http://{}{}", address.hosts, address.path);
    let is_url = url
        .parse::<::http::Uri>()
        .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if !is_url {
        section.problem("url", format_args!("must be {SCHEMES}"));
    }
    let rate = section.rate("rate").unwrap_or(RATE);
    let burst = section
        .integer("burst", 1..=u32::MAX)
        .and_then(NonZeroU32::new)
        .unwrap_or(BURST);
    let quota = RateQuota::try_new(rate.count, rate.per, burst)
        .inspect_err(|error| section.problem("rate", error))
        .ok();
    let in_flight = section
        .integer("in_flight", 1..=IN_FLIGHT_MAX)
        .unwrap_or(IN_FLIGHT);
    section.require_secret("secret");
    let secret = section.secret("secret", SECRET_MIN, inputs);
    Some(HttpOptions {
        url,
        secret: secret?,
        quota: quota?,
        in_flight: NonZeroUsize::new(in_flight)?,
    })
}
