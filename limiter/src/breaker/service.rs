//! The tower service: takes a permit before the call and tells the outcome after it.

use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_service::Service;

use super::{Breaker, BreakerError, Classify, ResponseFuture};

/// A service behind a breaker. Made by [`BreakerLayer`](super::BreakerLayer).
///
/// The permit is taken in `call`, not in `poll_ready`, so a caller that is ready and never calls holds no probe. Errors of the inner
/// `poll_ready` belong to no request and are passed on uncounted.
#[derive(Clone, Debug)]
pub struct CircuitBreaker<S, C> {
    inner: S,
    breaker: Breaker,
    classify: C,
}

impl<S, C> CircuitBreaker<S, C> {
    /// Puts the breaker around `inner`.
    pub fn new(inner: S, breaker: Breaker, classify: C) -> Self {
        Self {
            inner,
            breaker,
            classify,
        }
    }
}

impl<S, C, Request> Service<Request> for CircuitBreaker<S, C>
where
    S: Service<Request>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = BreakerError<S::Error>;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(BreakerError::Inner)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.breaker.try_acquire(Instant::now()) {
            Ok(permit) => {
                ResponseFuture::permitted(self.inner.call(request), permit, self.classify.clone())
            }
            Err(rejected) => ResponseFuture::rejected(rejected),
        }
    }
}

#[cfg(test)]
mod tests;
