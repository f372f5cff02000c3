//! The innermost part: hands the request to where its route leads.

use std::rc::Rc;

use http::{Method, Response};
use http_body::Body as _;

use super::{Handle, sanitise::not_allowed};
use crate::{
    config,
    connection::Drain,
    exchange::{Body, Exchange},
    handlers,
    http::{
        Problem,
        headers::{Via, wants_websocket},
    },
    proxy::{Proxy, forward, tunnel},
    route::Target,
    snapshot::Snapshot,
};

/// Hands requests to upstreams and handlers.
#[derive(Debug)]
pub(super) struct Dispatch {
    server: Rc<Snapshot<config::Server>>,
    proxy: Proxy,
}

impl Dispatch {
    /// With the rules of this table.
    pub(super) fn new(
        server: Rc<Snapshot<config::Server>>,
        via: Rc<Via>,
        drain: Rc<Drain>,
    ) -> Self {
        let proxy = Proxy {
            server: Rc::clone(&server),
            via,
            drain,
        };
        Self { server, proxy }
    }
}

impl Handle for Dispatch {
    async fn handle(&self, exchange: Exchange) -> Response<Body> {
        let Some(route) = exchange.route.clone() else {
            return match &exchange.allowed {
                Some(methods) => not_allowed(methods),
                None => Problem::NoRoute.response(),
            };
        };
        match &route.target {
            Target::Upstream(upstream) if is_websocket(&exchange) => {
                // Boxed: rare, and its future must not make everybody else's larger.
                Box::pin(tunnel::tunnel(&self.proxy, upstream, exchange)).await
            }
            Target::Upstream(upstream) => forward::forward(&self.proxy, upstream, exchange).await,
            Target::Handler {
                router,
                run_on,
                control,
                control_permits,
            } => {
                let Some(router) = router.get() else {
                    return Problem::NotReady.response();
                };
                let handler = handlers::Handler {
                    router,
                    control,
                    control_permits,
                    run_on: run_on(&exchange.head.method, exchange.head.uri.path()),
                    max_body: route.max_body,
                    body_timeout: self.server.read().body_timeout,
                };
                handlers::call(handler, exchange).await
            }
            Target::Redirect { to, status } => handlers::redirect(&exchange, to, *status),
        }
    }
}

/// The only upgrade that becomes a tunnel. Any other (h2c, TLS, …) is an offer that a server may ignore: the header is dropped
/// and the request goes on as it is, with its body. So does a WebSocket handshake that is none by RFC 6455.
fn is_websocket(exchange: &Exchange) -> bool {
    wants_websocket(&exchange.head.headers)
        && exchange.head.method == Method::GET
        && exchange.body.is_end_stream()
}
