//! The outermost layer: finds the route, and counts, times and logs every request to its response's last byte.

mod body;
mod watch;

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH, ORIGIN},
    request::Parts as Head,
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use self::{
    body::{Observed, SlowReader},
    watch::{Asked, Watch},
};
use super::{Handle, Parts};
use crate::{
    access_log::{Line, Lines},
    config,
    connection::{Answer, Client},
    exchange::{Exchange, Form, HeldBack},
    http::{
        Problem, Protocol, RequestBody, Unread,
        client_ip::client_ip,
        target::{host_of, read_path},
    },
    meters::{ConnectionMeters, Outcome},
    route::Routes,
    snapshot::Snapshot,
    upstream::SpoolBudget,
};

/// All layers: what a connection calls.
#[derive(Debug)]
pub(super) struct Observe<S> {
    inner: S,
    server: Rc<Snapshot<config::Server>>,
    routes: Rc<Snapshot<Routes>>,
    spool: Rc<SpoolBudget>,
    log: Rc<Log>,
}

/// Where a finished request is counted and written.
#[derive(Debug)]
struct Log {
    meters: Rc<ConnectionMeters>,
    /// The core's end of the access log, if that is on.
    lines: Option<Rc<Lines>>,
    /// Refusals seen, for sampling.
    refusals: Cell<u64>,
}

impl<S> Observe<S> {
    /// Around the other layers.
    pub(super) fn new(inner: S, parts: &Parts) -> Self {
        Self {
            inner,
            server: Rc::clone(&parts.server),
            routes: Rc::clone(&parts.routes),
            spool: Rc::clone(&parts.spool),
            log: Rc::new(Log {
                meters: Rc::clone(&parts.meters),
                lines: parts.lines.clone(),
                refusals: Cell::new(0),
            }),
        }
    }
}

impl<S: Handle> Observe<S> {
    async fn serve(
        &self,
        head: Head,
        body: RequestBody,
        client: &Rc<Client>,
    ) -> Response<Observed> {
        let started = Instant::now();
        let (server, routes) = (self.server.read(), self.routes.read());
        let host = || host_of(&head).unwrap_or_default();
        // What cannot be read in one way is refused by the next layer, whatever the route.
        let read = read_path(head.uri.path());
        let path = read.as_deref().unwrap_or_else(|| head.uri.path());
        // A preflight asks for another request's route.
        let preflown = preflown(&head);
        let method = preflown.as_ref().unwrap_or(&head.method);
        let (route, allowed) = routes.find(host, path, method);
        drop(read);
        let peer = client.peer.ip();
        let trusted = &server.trusted_proxies;
        let client_ip = client_ip(&head.headers, peer, client.is_trusted, trusted);
        let asked = self.log.lines.is_some().then(|| Asked {
            method: head.method.clone(),
            uri: head.uri.clone(),
            client: client_ip,
        });
        let has_body = !body.is_end_stream();
        client.uploads.store(has_body, Ordering::Relaxed);
        let form = Form::of(route.as_deref(), &head.headers);
        let is_upload = has_body && is_long(&head.headers);
        let reader = SlowReader {
            buffer: route.as_ref().map_or(0, |route| route.response_buffer),
            budget: Rc::clone(&self.spool),
            rate: server.min_rate,
        };
        let mut watch = Watch::begin(&self.log, client, started, &routes, route.clone(), asked);
        drop((server, routes));
        let exchange = Exchange {
            head,
            body,
            client: Rc::clone(client),
            client_ip,
            route,
            allowed,
            started,
        };
        let mut response = self.inner.handle(exchange).await;
        let held_back = response.extensions().get::<HeldBack>().copied();
        watch.answered(response.status(), held_back);
        let problem = response.extensions_mut().remove::<Problem>();
        if let Some(problem) = problem {
            form.shape(problem, &mut response);
        }
        let is_unread = problem.is_some() || response.extensions().get::<Unread>().is_some();
        if is_upload && is_unread {
            // hyper closes the connection rather than read the rest; its client is told so.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if client.protocol == Protocol::H2 {
            // `close` is for HTTP/1.1; an HTTP/2 connection outlives a bad request.
            response.headers_mut().remove(CONNECTION);
        }
        response.map(|body| Observed::new(watch, reader, body))
    }
}

impl<S: Handle + std::fmt::Debug> Answer for Observe<S> {
    type Body = Observed;

    fn answer(
        &self,
        request: Request<Incoming>,
        client: &Rc<Client>,
    ) -> impl Future<Output = Response<Observed>> {
        let (head, body) = request.into_parts();
        self.serve(head, body.into(), client)
    }

    fn unreadable(&self, client: &Client, status: StatusCode) {
        let routes = self.routes.read();
        let outcome = Outcome::of(status);
        routes
            .no_meters
            .request(outcome, client.protocol, Duration::ZERO);
        if let Some(lines) = &self.log.lines {
            lines.push(Line {
                at: Instant::now(),
                client: client.peer.ip(),
                method: Method::from_bytes(b"-").expect("a token"),
                uri: Uri::from_static("*"),
                protocol: client.protocol,
                route: routes.no_name.clone(),
                status: Some(status),
                outcome,
                bytes: 0,
                took: Duration::ZERO,
                sampled: 1,
            });
        }
    }
}

/// The method that a CORS preflight asks about.
fn preflown(head: &Head) -> Option<Method> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(wanted.as_bytes()).ok()
}

/// Whether hyper, after an early answer to an upload, cannot have the rest of it in its buffer.
fn is_long(headers: &HeaderMap) -> bool {
    const IN_BUFFER: u64 = 8 << 10;
    let announced = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    announced().is_none_or(|length: u64| length > IN_BUFFER)
}
