//! Requests to a router of this process: on the core they came to, or on the control runtime when their work belongs there.

use std::{sync::Arc, time::Duration};

use axum::body::Body as AxumBody;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Limited;
use seckill::api::Held;
use tokio::{runtime::Handle as Runtime, sync::Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use crate::{
    exchange::{Body, Exchange, HeldBack},
    http::{
        Problem, Unread,
        upload::{Progress, Stage},
    },
    route::RunOn,
};

/// Where a request goes, and within which bounds.
#[derive(Debug)]
pub(crate) struct Handler<'r> {
    pub router: &'r axum::Router,
    pub control: &'r Runtime,
    /// How many requests may be there at a time.
    pub control_permits: &'r Semaphore,
    /// Which of the two this request runs on.
    pub run_on: RunOn,
    /// The most bytes of the request's body.
    pub max_body: u64,
    /// How long all of it may take.
    pub body_timeout: Duration,
}

pub(crate) async fn call(handler: Handler<'_>, exchange: Exchange) -> Response<Body> {
    let runtime = (handler.run_on == RunOn::Control).then_some(handler.control);
    // Held until the answer's header is there. What its core serves itself touches nothing that all cores share.
    let permit = runtime.map(|_| handler.control_permits.try_acquire());
    if matches!(permit, Some(Err(_))) {
        return Problem::Overloaded.response();
    }
    let (request, upload) = to_axum(exchange, handler.max_body, handler.body_timeout);
    let mut response = Box::pin(run(handler.router.clone(), runtime, request)).await;
    if upload.is_some_and(|upload| upload.stage() == Stage::Sending) {
        response.extensions_mut().insert(Unread);
    }
    response
}

/// The request in axum's types. The body keeps streaming; beyond the limit, axum's extractors answer 413.
fn to_axum(
    exchange: Exchange,
    limit: u64,
    total: Duration,
) -> (Request<AxumBody>, Option<Arc<Progress>>) {
    let upload = exchange.body.progress();
    let body = match exchange.body.is_end_stream() {
        true => AxumBody::empty(),
        false => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            AxumBody::new(Limited::new(exchange.body.within(total), limit))
        }
    };
    (Request::from_parts(exchange.head, body), upload)
}

/// Calls a router here, or on another runtime when its work belongs there.
async fn run(
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
        Ok(mut response) => {
            let held_back = response.extensions_mut().remove::<Held>().map(held_back);
            if let Some(held_back) = held_back {
                response.extensions_mut().insert(held_back);
            }
            response.map(Body::Handler)
        }
        Err(never) => match never {},
    }
}

fn held_back(held: Held) -> HeldBack {
    match held {
        Held::For(time) => HeldBack::For(time),
        Held::Stream => HeldBack::Stream,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
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
            let mut client = Box::pin(run(router, Some(&control), request));
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

    #[tokio::test]
    async fn beyond_its_bound_the_control_runtime_is_not_asked() {
        let router = axum::Router::new().fallback(async || "answered");
        let control = Runtime::current();
        let permits = Semaphore::new(1);
        let ask = async |run_on: RunOn| {
            let handler = Handler {
                router: &router,
                control: &control,
                control_permits: &permits,
                run_on,
                max_body: 10,
                body_timeout: Duration::from_secs(1),
            };
            let request = Request::get("/").body("").unwrap();
            call(handler, Exchange::for_test(request)).await.status()
        };
        assert_eq!(ask(RunOn::Control).await, 200);
        let held = permits.try_acquire().unwrap();
        assert_eq!(ask(RunOn::Control).await, 503);
        // What a core serves itself takes no permit.
        assert_eq!(ask(RunOn::Core).await, 200);
        drop(held);
        assert_eq!(ask(RunOn::Control).await, 200);
    }
}
