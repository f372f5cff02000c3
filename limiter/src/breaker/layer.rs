//! The tower layer, and the one question it must ask its user: does this answer mean that the endpoint works?

use tower_layer::Layer;

use super::{Breaker, CircuitBreaker, Outcome};

/// Says what an answer tells about the endpoint's health. Any `Fn(&Result<R, E>) -> Outcome` does.
pub trait Classify<R, E> {
    /// [`Outcome::Failure`] for what a healthy endpoint does not do. A 404 is a healthy answer; a refused connection is not.
    fn classify(&self, answer: &Result<R, E>) -> Outcome;
}

impl<R, E, F: Fn(&Result<R, E>) -> Outcome> Classify<R, E> for F {
    fn classify(&self, answer: &Result<R, E>) -> Outcome {
        self(answer)
    }
}

/// Puts a [`CircuitBreaker`] around a service.
#[derive(Clone, Debug)]
pub struct BreakerLayer<C> {
    breaker: Breaker,
    classify: C,
}

impl<C> BreakerLayer<C> {
    /// A layer over a breaker; services made from one layer, or from handles of one breaker, share its state.
    pub fn new(breaker: Breaker, classify: C) -> Self {
        Self { breaker, classify }
    }
}

impl<S, C: Clone> Layer<S> for BreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.breaker.clone(), self.classify.clone())
    }
}
