//! A ready-made guard for small axum routers such as the admin API: `tower_governor` with one bucket for all callers.
//!
//! One bucket, because `tower_governor` keeps keyed state without a bound, and an admin listener has few callers: the guard
//! stops a runaway script or somebody guessing tokens. The data plane asks [`RateLimiter`](super::RateLimiter).

use std::{sync::Arc, time::Duration};

use governor::{clock::QuantaInstant, middleware::NoOpMiddleware};
use http::Response;
use tower_governor::{
    GovernorError, GovernorLayer, governor::GovernorConfigBuilder,
    key_extractor::GlobalKeyExtractor,
};

use super::{Limited, RateQuota};

/// The layer [`admin_guard`] makes; goes into `axum::Router::layer` when `B` is axum's body.
pub type AdminGuard<B> = GovernorLayer<GlobalKeyExtractor, NoOpMiddleware<QuantaInstant>, B>;

/// A layer that lets `quota` through and renders refusals with the given function.
///
/// Put it on the routes that change things or need a token, not on `/live`, `/ready` and `/metrics`: a busy script must not
/// make the instance look dead.
pub fn admin_guard<B>(
    quota: RateQuota,
    refuse: impl Fn(Limited) -> Response<B> + Send + Sync + 'static,
) -> AdminGuard<B> {
    let config = GovernorConfigBuilder::default()
        .key_extractor(GlobalKeyExtractor)
        .period(quota.interval())
        .burst_size(quota.burst().get())
        .finish()
        .expect("a quota's interval and burst are not zero");
    GovernorLayer::new(Arc::new(config)).error_handler(move |error| {
        let wait_s = match error {
            // It counts whole seconds downwards, so a wait of 0.9 s arrives as 0.
            GovernorError::TooManyRequests { wait_time, .. } => wait_time + 1,
            // The global key is always found; should that change, still refuse rather than let through.
            GovernorError::UnableToExtractKey | GovernorError::Other { .. } => 1,
        };
        refuse(Limited {
            retry_after: Duration::from_secs(wait_s),
            quota,
        })
    })
}

#[cfg(test)]
mod tests;
