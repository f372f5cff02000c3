//! THE list of layers between a client's connection and an upstream or handler, outermost first, with the reason for each place.
//!
//! Layers compose with tower's [`Layer`](tower_layer::Layer) and [`ServiceBuilder`]. What they wrap is not tower's `Service` but
//! [`Handle`]: it borrows the stack instead of cloning it for every request, its future is neither boxed nor `Send`, and
//! none of the layers has to wait for readiness. One stack per core.

pub mod observe;

pub mod observed;

pub mod cors;

pub mod sanitise;

pub mod limits;

pub mod dispatch;

use std::rc::Rc;

use http::Response;
use tower::ServiceBuilder;

use self::{
    cors::CorsLayer,
    dispatch::Dispatch,
    limits::{BodyLimitLayer, RouteLimitsLayer},
    observe::{Observe, ObserveLayer},
    sanitise::SanitiseLayer,
};
use crate::{body::Body, core::Core, exchange::Exchange};

/// Something that answers requests: a layer around another, or the innermost part.
pub trait Handle {
    /// Answers. Failures are answers too.
    fn handle<'a>(&'a self, exchange: Exchange<'a>) -> impl Future<Output = Response<Body>> + 'a;
}

/// Builds the stack of one core.
pub fn build(core: &Rc<Core>) -> Observe<impl Handle + use<>> {
    ServiceBuilder::new()
        // Outermost: it counts, times and logs what every other layer refuses, and a client that leaves at any point. It also
        // finds the route, because the route is its label.
        .layer(ObserveLayer::new(core))
        // Around every refusal, so that a page can read why; a preflight goes no further.
        .layer(CorsLayer)
        // Before anything trusts a header: refuses what could be read in two ways, drops what only trusted proxies may say.
        .layer(SanitiseLayer::new(core))
        // Before a token is spent: a body that is announced as too large is refused whatever the client's bucket holds.
        .layer(BodyLimitLayer)
        // Last before work is done: only requests that would be served draw from their client's bucket.
        .layer(RouteLimitsLayer)
        // The work: an upstream, a handler, a redirect.
        .service(Dispatch::new(core))
}
