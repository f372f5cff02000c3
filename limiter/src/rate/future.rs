//! The answer of a limited service: the inner one's, or a refusal that is ready at once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

pin_project! {
    /// What [`RateLimit`](super::RateLimit) returns.
    #[derive(Debug)]
    pub struct ResponseFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, R> {
        Allowed { #[pin] inner: F },
        Limited { refusal: Option<R> },
    }
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) fn allowed(inner: F) -> Self {
        let state = State::Allowed { inner };
        Self { state }
    }

    pub(super) fn limited(refusal: R) -> Self {
        let refusal = Some(refusal);
        Self {
            state: State::Limited { refusal },
        }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<R, E>>,
{
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Allowed { inner } => inner.poll(cx),
            StateProj::Limited { refusal } => {
                Poll::Ready(Ok(refusal.take().expect("not polled after completion")))
            }
        }
    }
}
