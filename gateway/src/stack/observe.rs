//! The outermost layer: finds the route, and counts, times and logs every request to its response's last byte.

use std::{net::IpAddr, rc::Rc, sync::atomic::Ordering, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH, ORIGIN},
    request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;
use seckill::api::Held;
use tokio::time::Instant;
use tower_layer::Layer;

use super::{Handle, observed::Observed, sanitise::client_ip};
use crate::{
    access_log::Line,
    body::Unread,
    config::Target,
    core::{Core, RouteEntry},
    exchange::{Client, Exchange, host_of},
    metrics::{Outcome, Protocol},
    problem::{Form, Problem},
    route::Found,
    target::read_path,
    upstream::holder::MinRate,
};

/// Makes [`Observe`].
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    core: Rc<Core>,
}

/// The whole stack: what hyper calls.
#[derive(Debug)]
pub struct Observe<S> {
    inner: S,
    core: Rc<Core>,
}

impl ObserveLayer {
    /// Observes for this core.
    pub fn new(core: &Rc<Core>) -> Self {
        Self {
            core: Rc::clone(core),
        }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            core: Rc::clone(&self.core),
        }
    }
}

impl<S: Handle> Observe<S> {
    /// In which form this request's refusal is told.
    fn form(&self, route: Option<&RouteEntry>, headers: &HeaderMap) -> Form {
        let config = &self.core.shared.config;
        let is_payment =
            route.is_some_and(|route| config.routes[route.index].target == Target::Payments);
        Form::of(route.map(|route| &route.target), headers, is_payment)
    }

    /// Serves one request.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        client: &Rc<Client>,
    ) -> Response<Observed> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let host = || host_of(&head).unwrap_or_default();
        // What cannot be read in one way is refused by the next layer, whatever the route.
        let read = read_path(head.uri.path());
        let path = read.as_deref().unwrap_or_else(|| head.uri.path());
        // A preflight asks for another request's route.
        let preflown = preflown(&head);
        let method = preflown.as_ref().unwrap_or(&head.method);
        let found = self.core.table.find(host, path, method);
        let allowed = (found == Found::OtherMethod).then(|| self.core.table.allowed(host(), path));
        drop(read);
        let route = match found {
            Found::Route(index) => Some(&self.core.routes[index]),
            Found::OtherMethod | Found::Nothing => None,
        };
        let client_ip = client_ip(
            &head.headers,
            client,
            &self.core.shared.config.server.trusted_proxies,
        );
        let asked = self.core.lines.is_some().then(|| Asked {
            method: head.method.clone(),
            uri: head.uri.clone(),
            client: client_ip,
        });
        client
            .uploads
            .store(!body.is_end_stream(), Ordering::Relaxed);
        let route_index = route.map_or(self.core.routes.len(), |route| route.index);
        let form = self.form(route, &head.headers);
        let is_upload = is_long_upload(&head.headers, &body);
        let mut watch = Watch::begin(&self.core, client, started, route_index, asked);
        let exchange = Exchange {
            head,
            body,
            client,
            client_ip,
            route,
            allowed,
            started,
        };
        let mut response = self.inner.handle(exchange).await;
        watch.status = Some(response.status());
        watch.held = response.extensions().get::<Held>().copied();
        watch.answered = Instant::now();
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
        response.map(|body| Observed::new(watch, body))
    }
}

/// The method that a CORS preflight asks about.
fn preflown(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(wanted.as_bytes()).ok()
}

/// An upload of which hyper, after an early answer, cannot have the rest in its buffer.
fn is_long_upload(headers: &HeaderMap, body: &Incoming) -> bool {
    const IN_BUFFER: u64 = 8 << 10;
    let announced = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    !body.is_end_stream() && announced().is_none_or(|length: u64| length > IN_BUFFER)
}

/// One request from header to last byte. Dropped, it counts: as it ended, or as aborted if it did not.
#[derive(Debug)]
pub(super) struct Watch {
    core: Rc<Core>,
    pub(super) client: Rc<Client>,
    started: Instant,
    route: usize,
    asked: Option<Asked>,
    status: Option<StatusCode>,
    /// When the response's header was there.
    answered: Instant,
    /// How much of the time was no latency.
    held: Option<Held>,
    pub(super) is_complete: bool,
    pub(super) bytes: u64,
}

/// What the access log says about the request.
#[derive(Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    client: IpAddr,
}

impl Watch {
    fn begin(
        core: &Rc<Core>,
        client: &Rc<Client>,
        started: Instant,
        route: usize,
        asked: Option<Asked>,
    ) -> Self {
        core.meters.in_flight.up();
        client.in_flight.set(client.in_flight.get() + 1);
        client.has_served.set(true);
        Self {
            core: Rc::clone(core),
            client: Rc::clone(client),
            started,
            route,
            asked,
            status: None,
            answered: started,
            held: None,
            is_complete: false,
            bytes: 0,
        }
    }

    /// How slowly a client may read.
    pub(super) fn min_rate(&self) -> MinRate {
        self.core.shared.config.server.min_rate
    }

    /// How much of an answer of this route may be kept for a client that reads it slowly.
    pub(super) fn response_buffer(&self) -> u64 {
        let route = self.core.routes.get(self.route);
        route.map_or(0, |route| route.response_buffer)
    }

    fn log(&mut self, outcome: Outcome, now: Instant, took: Duration) {
        let Some(lines) = &self.core.lines else {
            return;
        };
        let is_refusal = matches!(
            self.status,
            Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT)
        );
        let mut sampled = 1;
        if is_refusal {
            let seen = self.core.refusals.get();
            self.core.refusals.set(seen + 1);
            sampled = self.core.shared.config.log.sample_refusals;
            if !seen.is_multiple_of(sampled) {
                return;
            }
        }
        let Some(asked) = self.asked.take() else {
            return;
        };
        lines.push(Line {
            at: self.core.wall_time(now),
            client: asked.client,
            method: asked.method,
            uri: asked.uri,
            protocol: self.client.protocol,
            route: self.core.route_name(self.route),
            status: self.status,
            outcome,
            bytes: self.bytes,
            took,
            sampled,
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started);
        let outcome = match self.status {
            Some(status) if self.is_complete => Outcome::of(status),
            _ => Outcome::Aborted,
        };
        // What a buyer waited for on purpose would look like a slow server; the log has the whole time.
        let latency = match self.held {
            None => took,
            Some(Held::For(held)) => took.saturating_sub(held),
            Some(Held::Stream) => self.answered.saturating_duration_since(self.started),
        };
        self.core
            .meters
            .request(self.route, outcome, self.client.protocol, latency);
        self.core.meters.in_flight.down();
        self.client.in_flight.set(self.client.in_flight.get() - 1);
        self.client.idle_since.set(now);
        self.log(outcome, now, took);
    }
}
