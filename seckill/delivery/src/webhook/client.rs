//! The HTTP/1.1 client below the webhook: hyper's pool of kept connections, over TCP or TLS.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::ClientConfig;

use crate::{DeliveryError, tls::Stream};

/// Connections kept for the next event; the requests in flight bound those in use.
const MAX_IDLE: usize = 32;
/// The answer's body says nothing here; a longer one costs its connection.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Sends requests to the shop.
pub(super) struct WebhookClient(Client<Connector, Full<Bytes>>);

impl WebhookClient {
    pub(super) fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .build(Connector(tls));
        Self(client)
    }

    /// Sends a request and reads the answer to its end.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<()>, DeliveryError> {
        // The shop may close a kept connection while the request is on its way; the event's id makes another try harmless. Each of them
        // uses up a kept connection, so these are all that there can be.
        for _ in 0..MAX_IDLE {
            match self.0.request(request.clone()).await {
                Err(error) if had_answered(&error) => {}
                answered => return read(answered).await,
            }
        }
        read(self.0.request(request).await).await
    }
}

async fn read(
    answered: Result<Response<hyper::body::Incoming>, Error>,
) -> Result<Response<()>, DeliveryError> {
    let (parts, body) = answered.map_err(|error| failure(&error))?.into_parts();
    if let Some(HasAnswered(flag)) = parts.extensions.get() {
        flag.store(true, Ordering::Relaxed);
    }
    // Only a connection whose answer was read to its end can carry another event.
    let _ = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    Ok(Response::from_parts(parts, ()))
}

fn failure(error: &Error) -> DeliveryError {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let cause = causes
        .last()
        .map_or(error.to_string(), |cause| cause.to_string());
    match error.is_connect() {
        true => DeliveryError::Unreachable(cause),
        false => DeliveryError::Broken(cause),
    }
}

/// Goes with each connection: whether it has carried an answer.
#[derive(Clone)]
struct HasAnswered(Arc<AtomicBool>);

fn had_answered(error: &Error) -> bool {
    let mut extensions = Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut extensions);
    }
    let flag = extensions.get();
    flag.is_some_and(|HasAnswered(flag)| flag.load(Ordering::Relaxed))
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().extra(HasAnswered(Arc::default()))
    }
}

#[derive(Clone)]
struct Connector(Option<Arc<ClientConfig>>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            // An IPv6 address stands in brackets in a URL and without them in a socket address.
            let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
            let port = url
                .port_u16()
                .unwrap_or(if tls.is_some() { 443 } else { 80 });
            Stream::connect(host, port, tls).await.map(TokioIo::new)
        })
    }
}
