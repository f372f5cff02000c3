//! The innermost part: hands the request to where its route leads.

use std::{rc::Rc, sync::Arc};

use axum::body::Body as AxumBody;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::LOCATION};
use http_body::Body as _;
use http_body_util::Limited;
use limiter::rate::ClientIp;
use tokio::runtime::Handle as Runtime;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use super::{Handle, sanitise::not_allowed};
use crate::{
    body::{Body, Progress, RequestBody, Stage, Unread},
    core::{Core, RouteTarget},
    exchange::{Exchange, host_of},
    forward, headers,
    problem::Problem,
    upgrade,
};

/// Hands requests to upstreams and handlers.
#[derive(Debug)]
pub struct Dispatch {
    core: Rc<Core>,
}

impl Dispatch {
    /// To the targets of this core.
    pub fn new(core: &Rc<Core>) -> Self {
        Self {
            core: Rc::clone(core),
        }
    }
}

impl Handle for Dispatch {
    async fn handle<'a>(&'a self, exchange: Exchange<'a>) -> Response<Body> {
        let Some(route) = exchange.route else {
            return match &exchange.allowed {
                Some(methods) => not_allowed(methods),
                None => Problem::NoRoute.response(),
            };
        };
        match &route.target {
            RouteTarget::Upstream(upstream) if is_websocket(&exchange) => {
                // Boxed: rare, and its future must not make everybody else's larger.
                Box::pin(upgrade::upgrade(&self.core, upstream, exchange)).await
            }
            RouteTarget::Upstream(upstream) => {
                forward::forward(&self.core, upstream, exchange).await
            }
            RouteTarget::Handler {
                router,
                here,
                control,
            } => {
                let runtime = (!here.has(&exchange.head.method)).then_some(control);
                let pause = self.core.shared.config.server.body_timeout;
                // Held until the answer's header is there. What its core serves itself touches nothing that all cores share.
                let room = runtime.map(|_| self.core.shared.control_room.try_acquire());
                if matches!(room, Some(Err(_))) {
                    return Problem::Overloaded.response();
                }
                let (request, upload) = to_handler(exchange, route.max_body, pause);
                let mut response = Box::pin(call(router.clone(), runtime, request)).await;
                if upload.is_some_and(|upload| upload.stage() == Stage::Sending) {
                    response.extensions_mut().insert(Unread);
                }
                response
            }
            RouteTarget::Absent => Problem::NotReady.response(),
            RouteTarget::Redirect { to, status } => redirect(&exchange, to, *status),
        }
    }
}

/// The only upgrade that becomes a tunnel. Any other (h2c, TLS, …) is an offer that a server may ignore: the header is dropped
/// and the request goes on as it is, with its body. So does a WebSocket handshake that is none by RFC 6455.
fn is_websocket(exchange: &Exchange<'_>) -> bool {
    headers::wants_websocket(&exchange.head.headers)
        && exchange.head.method == Method::GET
        && exchange.body.is_end_stream()
}

/// The request in axum's types. The body keeps streaming; beyond the limit, axum's extractors answer 413.
fn to_handler(
    exchange: Exchange<'_>,
    limit: u64,
    pause: std::time::Duration,
) -> (Request<AxumBody>, Option<Arc<Progress>>) {
    let mut upload = None;
    let body = match exchange.body.is_end_stream() {
        true => AxumBody::empty(),
        false => {
            let body = RequestBody::within(exchange.body, u64::MAX, pause);
            upload = body.progress();
            AxumBody::new(Limited::new(
                body,
                usize::try_from(limit).unwrap_or(usize::MAX),
            ))
        }
    };
    let mut request = Request::from_parts(exchange.head, body);
    request
        .extensions_mut()
        .insert(ClientIp(exchange.client_ip));
    (request, upload)
}

/// Calls a router here, or on another runtime when its work belongs there.
async fn call(
    router: axum::Router,
    runtime: Option<&Runtime>,
    request: Request<AxumBody>,
) -> Response<Body> {
    let is_safe = request.method().is_safe();
    let answer = router.oneshot(request);
    let response = match runtime {
        None => answer.await,
        Some(runtime) => {
            let running = runtime.spawn(answer);
            // A payment or a cancellation that has begun is finished, whether the client is there or not. A read is not: it may
            // be waiting for news that nobody wants any more.
            let answered = match is_safe {
                true => AbortOnDropHandle::new(running).await,
                false => running.await,
            };
            match answered {
                Ok(response) => response,
                // It panicked, and the panic was reported there.
                Err(_) => return Problem::HandlerFailed.response(),
            }
        }
    };
    match response {
        Ok(response) => response.map(Body::Handler),
        Err(never) => match never {},
    }
}

fn redirect(exchange: &Exchange<'_>, to: &str, status: StatusCode) -> Response<Body> {
    let path = exchange
        .head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let location = match to {
        "https" => {
            let Some(host) = host_of(&exchange.head).filter(|host| !host.is_empty()) else {
                // An HTTP/1.0 client that names no host cannot be sent to one.
                return Problem::BadRequest.response();
            };
            let name = host.rsplit_once(':').map_or(host, |(name, port)| {
                if port.bytes().all(|digit| digit.is_ascii_digit()) {
                    name
                } else {
                    host
                }
            });
            format!("https://{name}{path}")
        }
        origin => format!("{origin}{path}"),
    };
    match HeaderValue::try_from(location) {
        Ok(location) => {
            let mut response = Response::new(Body::EMPTY);
            *response.status_mut() = status;
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => Problem::BadRequest.response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        sync::{Notify, mpsc},
        time::timeout,
    };

    use super::*;

    /// Tells how a handler ended, when it does.
    struct End {
        is_finished: bool,
        told: mpsc::UnboundedSender<bool>,
    }

    impl Drop for End {
        fn drop(&mut self) {
            let _ = self.told.send(self.is_finished);
        }
    }

    // A long poll whose client is gone would hold its place and its share of the drain for as long as it may wait; a payment that
    // ended with its client would be in doubt.
    #[tokio::test]
    async fn a_read_ends_with_its_client_and_a_change_is_finished() {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
            let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (told, mut ends) = mpsc::unbounded_channel();
            let handler = {
                let (begun, go_on) = (begun.clone(), go_on.clone());
                move || async move {
                    let mut end = End {
                        is_finished: false,
                        told,
                    };
                    begun.notify_one();
                    go_on.notified().await;
                    end.is_finished = true;
                }
            };
            let router = axum::Router::new().fallback(handler);
            let request = Request::builder().method(&method).uri("/");
            let request = request.body(AxumBody::empty()).unwrap();
            let control = Runtime::current();
            let mut client = Box::pin(call(router, Some(&control), request));
            tokio::select! {
                _ = &mut client => panic!("{method} was answered"),
                () = begun.notified() => {}
            }
            drop(client);
            let is_read = method.is_safe();
            if !is_read {
                go_on.notify_one();
            }
            let ended = timeout(Duration::from_secs(5), ends.recv()).await;
            assert_eq!(ended, Ok(Some(!is_read)), "{method}");
        }
    }
}
