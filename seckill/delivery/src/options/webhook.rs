//! The shop's own endpoint: a signed webhook with a limit of its own.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use http::Uri;
use limiter::rate::RateQuota;
use settings::{Inputs, Section, units::Rate};

use super::{Address, URLS};
use crate::tls::Tls;

/// A shop in a sale has its own visitors too; this many more requests should not be felt.
const RATE: Rate = Rate {
    count: BURST,
    per: Duration::from_secs(1),
};
const BURST: NonZeroU32 = NonZeroU32::new(100).expect("it is not zero");
/// At 100 ms an answer this is 160 a second, above the rate.
const IN_FLIGHT: usize = 16;
const IN_FLIGHT_MAX: usize = 1024;
/// Shorter secrets of a MAC can be guessed offline.
const SECRET_MIN: usize = 16;

/// The shop's endpoint and how much it can take.
#[derive(Clone)]
pub struct WebhookOptions {
    /// `http://HOST:PORT/PATH` or `https://…`, without a user.
    pub url: Uri,
    /// For `https`.
    pub tls: Option<Tls>,
    /// Key of the signature.
    pub secret: Vec<u8>,
    /// Requests per time and at once after a silence, of this process.
    pub quota: RateQuota,
    /// Requests on their way at once.
    pub in_flight: NonZeroUsize,
}

impl fmt::Debug for WebhookOptions {
    /// Without the secret, and without the path, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookOptions")
            .field("authority", &self.url.authority())
            .finish_non_exhaustive()
    }
}

pub(super) fn read(
    section: &Section<'_>,
    address: &Address<'_>,
    inputs: &Inputs<'_>,
) -> Option<WebhookOptions> {
    let Address {
        scheme,
        hosts,
        path,
    } = address;
    let url = format!("{scheme}://{hosts}{path}").parse::<Uri>().ok();
    let url = url.filter(|url| url.host().is_some_and(|host| !host.is_empty()));
    if url.is_none() {
        section.problem("url", format_args!("must be {URLS}"));
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
    let tls = Tls::read(*scheme == "https", section, inputs);
    Some(WebhookOptions {
        url: url?,
        tls,
        secret: secret?,
        quota: quota?,
        in_flight: NonZeroUsize::new(in_flight)?,
    })
}
