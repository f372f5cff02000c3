//! The answer of a service behind a breaker. It owns the permit: dropping the future is cancelling the request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{BreakerError, Classify, Permit, Rejected};

pin_project! {
    /// What [`CircuitBreaker`](super::CircuitBreaker) returns.
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, C> {
        Permitted { #[pin] inner: F, permit: Option<Permit>, classify: C },
        Rejected { rejected: Rejected },
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn permitted(inner: F, permit: Permit, classify: C) -> Self {
        let permit = Some(permit);
        Self {
            state: State::Permitted {
                inner,
                permit,
                classify,
            },
        }
    }

    pub(super) fn rejected(rejected: Rejected) -> Self {
        Self {
            state: State::Rejected { rejected },
        }
    }
}

impl<F, C, R, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<R, E>>,
    C: Classify<R, E>,
{
    type Output = Result<R, BreakerError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Permitted {
                inner,
                permit,
                classify,
            } => {
                let answer = ready!(inner.poll(cx));
                if let Some(permit) = permit.take() {
                    permit.record(classify.classify(&answer), Instant::now());
                }
                Poll::Ready(answer.map_err(BreakerError::Inner))
            }
            StateProj::Rejected { rejected } => Poll::Ready(Err((*rejected).into())),
        }
    }
}
