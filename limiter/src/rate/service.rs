//! The tower service: asks the limiter, then either calls on or answers by itself. No boxing, no waiting.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::Instant;
use tower_service::Service;

use super::{Decision, KeyExtractor, Limited, RateKey, RateLimiter, ResponseFuture};

/// A service behind a token bucket per key. Made by [`RateLimitLayer`](super::RateLimitLayer).
///
/// Being ready is the inner service's: put this layer outside of anything that queues, so that refusals never wait in it.
#[derive(Clone, Debug)]
pub struct RateLimit<S, K, R> {
    inner: S,
    limiter: Arc<RateLimiter>,
    key: K,
    refuse: R,
}

impl<S, K, R> RateLimit<S, K, R> {
    /// Puts the limiter in front of `inner`.
    pub fn new(inner: S, limiter: Arc<RateLimiter>, key: K, refuse: R) -> Self {
        Self {
            inner,
            limiter,
            key,
            refuse,
        }
    }
}

impl<S, K, R, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimit<S, K, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    K: KeyExtractor,
    R: Fn(Limited) -> Response<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let key = self.key.key(&request).unwrap_or(RateKey::ABSENT);
        match self.limiter.check(key, Instant::now()) {
            Decision::Allowed { .. } => ResponseFuture::allowed(self.inner.call(request)),
            Decision::Limited(limited) => ResponseFuture::limited((self.refuse)(limited)),
        }
    }
}

#[cfg(test)]
mod tests;
