//! The layers that refuse by quantity: the size of a body, the rate of a client. Neither waits nor boxes anything.
//!
//! The decision is [`RateLimiter::check`]; only the layer around it is the stack's own, because limiter's `RateLimitLayer` wraps
//! one limiter around a tower `Service`, while here every route brings its own list and the stack is no `Service` (see the
//! [stack](super)).

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::Either;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{AUTHORIZATION, CONTENT_LENGTH},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use limiter::rate::{
    Decision, HeaderKey, Limited, RateKey, RateLimiter, policy_field, remaining_field,
};
use seckill::api::identity::Identity;
use tower_layer::Layer;

use super::Handle;
use crate::{
    body::Body,
    config::{self, values::LimitKey},
    exchange::Exchange,
    metrics::Protocol,
    problem::Problem,
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A token bucket as routes use it. Shared by all cores, so that a client has one bucket and not one per core.
#[derive(Debug)]
pub struct Bucket {
    /// Its configuration.
    pub config: config::Limit,
    /// The buckets.
    pub limiter: RateLimiter,
    key: Key,
    policy: HeaderValue,
}

#[derive(Debug)]
enum Key {
    Ip,
    Header(HeaderName, HeaderKey),
    Buyer(Identity, HeaderKey),
}

impl Bucket {
    /// The buckets of a limit, all full. `identity` says who a buyer is, for limits that go by it.
    pub fn new(
        config: config::Limit,
        identity: Option<&Identity>,
        now: tokio::time::Instant,
    ) -> Self {
        let capacity =
            std::num::NonZeroUsize::new(config.max_keys).unwrap_or(std::num::NonZeroUsize::MIN);
        Self {
            limiter: RateLimiter::new(config.quota, capacity, now),
            key: match (&config.key, identity) {
                (LimitKey::Header(name), _) => {
                    Key::Header(name.clone(), HeaderKey::new(name.clone()))
                }
                (LimitKey::Buyer, Some(identity)) => {
                    Key::Buyer(identity.clone(), HeaderKey::new(AUTHORIZATION))
                }
                (LimitKey::Ip | LimitKey::Buyer, _) => Key::Ip,
            },
            policy: policy_field(&config.name, config.quota),
            config,
        }
    }

    fn key(&self, exchange: &Exchange<'_>) -> RateKey {
        let headers = &exchange.head.headers;
        let named = match &self.key {
            Key::Ip => None,
            Key::Header(name, key) => headers.get(name).map(|value| key.key_of(value.as_bytes())),
            // Only what is proven counts: a key out of a token that nobody signed could be a new one for every request.
            Key::Buyer(identity, key) => identity
                .proven(headers, now_ms())
                .map(|buyer| key.key_of(buyer.as_str().as_bytes())),
        };
        // Whoever names nobody is counted by their address: one bucket for all of them would let one client empty it.
        named.unwrap_or_else(|| RateKey::from_ip(exchange.client_ip))
    }

    fn refuse(&self, limited: Limited) -> Response<Body> {
        let mut response = Problem::Limited(limited.retry_after).response();
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT, limited.field(&self.config.name));
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        response
    }

    fn report(&self, headers: &mut HeaderMap, remaining: u32) {
        headers.append(RATE_LIMIT, remaining_field(&self.config.name, remaining));
        headers.append(RATE_LIMIT_POLICY, self.policy.clone());
    }
}

/// Unix time, for tokens that end.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}

/// Makes [`RouteLimits`].
#[derive(Clone, Copy, Debug)]
pub struct RouteLimitsLayer;

/// Draws from the buckets of the request's route, in the order the route names them.
#[derive(Debug)]
pub struct RouteLimits<S> {
    inner: S,
}

impl<S> Layer<S> for RouteLimitsLayer {
    type Service = RouteLimits<S>;

    fn layer(&self, inner: S) -> RouteLimits<S> {
        RouteLimits { inner }
    }
}

impl<S: Handle> Handle for RouteLimits<S> {
    fn handle<'a>(&'a self, exchange: Exchange<'a>) -> impl Future<Output = Response<Body>> + 'a {
        let buckets: &'a [Arc<Bucket>] = exchange.route.map_or(&[], |route| &route.limits);
        let mut reports = Vec::new();
        for (at, bucket) in buckets.iter().enumerate() {
            match bucket
                .limiter
                .check(bucket.key(&exchange), exchange.started)
            {
                Decision::Limited(limited) => {
                    // Refused here, it costs the limits before nothing: only requests that are served draw.
                    for spent in &buckets[..at] {
                        spent.limiter.give_back(spent.key(&exchange));
                    }
                    return Either::Left(ready(bucket.refuse(limited)));
                }
                Decision::Allowed { remaining } if bucket.config.report => {
                    reports.push((bucket, remaining));
                }
                Decision::Allowed { .. } => {}
            }
        }
        let answer = self.inner.handle(exchange);
        match reports.is_empty() {
            true => Either::Right(Either::Left(answer)),
            false => Either::Right(Either::Right(async move {
                let mut response = answer.await;
                for (bucket, remaining) in reports {
                    bucket.report(response.headers_mut(), remaining);
                }
                response
            })),
        }
    }
}

/// Makes [`BodyLimit`].
#[derive(Clone, Copy, Debug)]
pub struct BodyLimitLayer;

/// How much of a refused HTTP/2 body is read, and for how long.
const DISCARD_BYTES: usize = 16 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Reads a refused body and throws it away. Dropped unread it would reset the stream, and clients (curl 7.88 among them) then
/// report a broken stream instead of the 413 that they were sent.
async fn discard(mut body: Incoming) {
    let all = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) else {
                return;
            };
            left = rest;
        }
    };
    // A client that sends more, or slower, gets the reset.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// Refuses bodies that are announced as too large. Those that are not announced are cut off while streaming.
#[derive(Debug)]
pub struct BodyLimit<S> {
    inner: S,
}

impl<S> Layer<S> for BodyLimitLayer {
    type Service = BodyLimit<S>;

    fn layer(&self, inner: S) -> BodyLimit<S> {
        BodyLimit { inner }
    }
}

impl<S: Handle> Handle for BodyLimit<S> {
    fn handle<'a>(&'a self, exchange: Exchange<'a>) -> impl Future<Output = Response<Body>> + 'a {
        let announced = exchange
            .head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .unwrap_or(0);
        let is_too_large = exchange
            .route
            .is_some_and(|route| announced > route.max_body);
        if is_too_large {
            if exchange.client.protocol == Protocol::H2 {
                tokio::task::spawn_local(discard(exchange.body));
            }
            Either::Left(ready(Problem::BodyTooLarge.response()))
        } else {
            Either::Right(self.inner.handle(exchange))
        }
    }
}
