//! The tower layer: limiter, key and refusal in one value, applied to any HTTP service.

use std::sync::Arc;

use tower_layer::Layer;

use super::{RateLimit, RateLimiter};

/// Puts a [`RateLimit`] in front of a service.
///
/// `key` is a [`KeyExtractor`](super::KeyExtractor). `refuse` is a `Fn(Limited) -> http::Response<B>` and renders the refusal: status, problem
/// document, fields and counting are the caller's.
#[derive(Clone, Debug)]
pub struct RateLimitLayer<K, R> {
    limiter: Arc<RateLimiter>,
    key: K,
    refuse: R,
}

impl<K, R> RateLimitLayer<K, R> {
    /// A layer over a limiter that others may share: two layers with one limiter draw from the same buckets.
    pub fn new(limiter: Arc<RateLimiter>, key: K, refuse: R) -> Self {
        Self {
            limiter,
            key,
            refuse,
        }
    }
}

impl<S, K: Clone, R: Clone> Layer<S> for RateLimitLayer<K, R> {
    type Service = RateLimit<S, K, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(
            inner,
            Arc::clone(&self.limiter),
            self.key.clone(),
            self.refuse.clone(),
        )
    }
}
