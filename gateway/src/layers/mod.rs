//! THE list of layers between a client's connection and an upstream or handler, outermost first, with the reason for each place.
//!
//! What they wrap is not tower's `Service` but [`Handle`]: it borrows the layers instead of cloning them for every request, its future is
//! neither boxed nor `Send`, and none of the layers has to wait for readiness. One list per core. Each layer gets the values it uses.

mod body_limit;
mod cors;
mod dispatch;
mod observe;
mod rate_limit;
mod sanitise;

use std::rc::Rc;

use http::Response;
use tower::ServiceBuilder;

use self::{
    body_limit::BodyLimit, cors::Cors, dispatch::Dispatch, observe::Observe, rate_limit::RateLimit,
    sanitise::Sanitise,
};
use crate::{
    access_log::Lines,
    config,
    connection::{Answer, Drain},
    exchange::{Body, Exchange},
    http::headers::Via,
    meters::ConnectionMeters,
    route::Routes,
    snapshot::Snapshot,
    upstream::SpoolBudget,
};

/// Something that answers requests: a layer around another, or the innermost part.
pub(crate) trait Handle {
    /// Answers. Failures are answers too.
    fn handle(&self, exchange: Exchange) -> impl Future<Output = Response<Body>>;
}

/// What the layers of a core use.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// The `[server]` table as it is now.
    pub server: Rc<Snapshot<config::Server>>,
    /// The routes as they are now.
    pub routes: Rc<Snapshot<Routes>>,
    /// Who this process is to others.
    pub via: Rc<Via>,
    /// What is counted of connections.
    pub meters: Rc<ConnectionMeters>,
    /// The core's end of the access log, if that is on.
    pub lines: Option<Rc<Lines>>,
    /// What answers of slow readers may occupy.
    pub spool: Rc<SpoolBudget>,
    /// The end of the core's work.
    pub drain: Rc<Drain>,
}

/// Builds the layers of one core.
pub(crate) fn build(parts: &Parts) -> impl Answer + use<> {
    let Parts {
        server, via, drain, ..
    } = parts;
    ServiceBuilder::new()
        // Outermost: it counts, times and logs what every other layer refuses, and a client that leaves at any point. It also
        // finds the route, because the route is its label.
        .layer_fn(|inner| Observe::new(inner, parts))
        // Around every refusal, so that a page can read why; a preflight goes no further.
        .layer_fn(Cors::new)
        // Before anything trusts a header: refuses what could be read in two ways, drops what only trusted proxies may say.
        .layer_fn(|inner| Sanitise::new(inner, Rc::clone(server), Rc::clone(via)))
        // Before a token is spent: a body that is announced as too large is refused whatever the client's bucket holds.
        .layer_fn(BodyLimit::new)
        // Last before work is done: only requests that would be served draw from their client's bucket.
        .layer_fn(RateLimit::new)
        // The work: an upstream, a handler, a redirect.
        .service(Dispatch::new(
            Rc::clone(server),
            Rc::clone(via),
            Rc::clone(drain),
        ))
}

#[cfg(test)]
pub(crate) mod testing {
    //! An innermost part and a route, for tests of layers.

    use super::*;
    use crate::{
        meters::Meters,
        route::{Route, Target},
    };

    /// Answers 200 and says in the header `seen` which headers it was sent.
    #[derive(Debug)]
    pub(crate) struct Echo;

    impl Handle for Echo {
        async fn handle(&self, exchange: Exchange) -> Response<Body> {
            let mut names: Vec<_> = exchange
                .head
                .headers
                .keys()
                .map(|name| name.as_str())
                .collect();
            names.sort_unstable();
            let mut response = Response::new(Body::EMPTY);
            let seen = names.join(" ").parse().expect("names are visible");
            response.headers_mut().insert("seen", seen);
            response
        }
    }

    /// A route that leads nowhere, with a change.
    pub(crate) fn route(change: impl FnOnce(&mut Route)) -> Rc<Route> {
        let mut route = Route {
            name: "test".into(),
            meters: Meters::new().route("test"),
            target: Target::Redirect {
                to: "https".to_owned(),
                status: http::StatusCode::FOUND,
            },
            is_payment: false,
            limits: Vec::new(),
            max_body: u64::MAX,
            allow_origins: Vec::new(),
            request_buffer: 0,
            response_buffer: 0,
        };
        change(&mut route);
        Rc::new(route)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper::body::Incoming;

    use super::*;
    use crate::connection::Client;

    fn size_of_answer<A: Answer + 'static>(_: impl FnOnce(&Parts) -> A) -> usize {
        fn size_of<A: 'static, F>(
            _: impl FnOnce(&'static A, Request<Incoming>, &'static Rc<Client>) -> F,
        ) -> usize {
            std::mem::size_of::<F>()
        }
        size_of::<A, _>(|answer, request, client| answer.answer(request, client))
    }

    /// A future is copied whole wherever it is moved, and a request's is moved into hyper and, over HTTP/2, into a task. It had 25,600
    /// bytes once.
    #[test]
    fn the_future_of_a_request_is_small() {
        let size = size_of_answer(build);
        assert!(size <= 5_632, "{size} bytes");
    }
}
