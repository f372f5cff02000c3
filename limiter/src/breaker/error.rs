//! Why a request did not reach its endpoint.

use std::time::Duration;

/// The breaker refused: the endpoint is at fault. Try another one, or answer 503 with this `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open retry_after={retry_after:?}")]
pub struct Rejected {
    /// When the breaker may let a request through again, at the earliest.
    pub retry_after: Duration,
}

/// The error of a service behind a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakerError<E> {
    /// Refused; the service was not called, so the request may be sent elsewhere.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The service's own error.
    #[error(transparent)]
    Inner(E),
}
