//! Delivers an event as a signed POST over plain HTTP to the shop, which stands beside the gateway on a trusted network.

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{DeliveryError, Event, SIGNATURE_HEADER, Sink, sign};
use crate::{clock::WallClock, ledger::OutboxEvent};

/// Connections kept for the next event; the deliverer's concurrency bounds those in use.
const MAX_IDLE: usize = 32;
/// The answer's body says nothing here; a longer one costs its connection.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why an address cannot be used. The configuration is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("downstream url {0:?} must be http://HOST:PORT/PATH")]
pub struct SinkError(pub String);

/// The shop's endpoint.
pub struct HttpSink {
    /// Host and port to connect to.
    host: String,
    port: u16,
    /// What the `Host` header says.
    authority: String,
    path: String,
    secret: Vec<u8>,
    clock: WallClock,
    timeout: Duration,
    /// Connections that answered and were left open. A `std` lock: held for a push or a pop.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl HttpSink {
    /// Takes the address apart. `timeout` bounds one delivery, connecting included.
    pub fn try_new(
        url: &str,
        secret: Vec<u8>,
        clock: WallClock,
        timeout: Duration,
    ) -> Result<Self, SinkError> {
        let invalid = || SinkError(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(invalid());
        };
        Ok(Self {
            // An IPv6 address stands in brackets in a URL and without them in a socket address.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            secret,
            clock,
            timeout,
            idle: Mutex::new(Vec::new()),
        })
    }

    fn request(
        &self,
        event: &OutboxEvent,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, DeliveryError> {
        Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("penstock/", env!("CARGO_PKG_VERSION")),
            )
            .header("penstock-event-id", event.id())
            .header(
                SIGNATURE_HEADER,
                sign(&self.secret, (self.clock)() / 1000, body),
            )
            .body(Full::new(body.clone()))
            .map_err(|error| DeliveryError::Unreachable(error.to_string()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
        let unreachable =
            |error: &dyn std::fmt::Display| DeliveryError::Unreachable(error.to_string());
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| unreachable(&error))?;
        // Small requests, each awaited: nothing is gained by waiting for more bytes.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        // Ends by itself when the sender is dropped or the shop closes.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }

    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<(), DeliveryError> {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| DeliveryError::Unreachable(error.to_string()))?;
        let status = answer.status();
        // The answer has to be read to its end before the connection can carry another event.
        if Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .is_ok()
        {
            // Ready only if the shop leaves the connection open.
            if sender.ready().await.is_ok() {
                self.keep(sender);
            }
        }
        if status.is_success() {
            Ok(())
        } else {
            Err(DeliveryError::Status(status.as_u16()))
        }
    }

    async fn post(&self, event: &OutboxEvent) -> Result<(), DeliveryError> {
        let body = Bytes::from(Event::new(event).body());
        if let Some(sender) = self.take_idle() {
            match self.send(sender, self.request(event, &body)?).await {
                // The shop may have closed the kept connection meanwhile; the event's id makes a second try harmless.
                Err(DeliveryError::Unreachable(_)) => {}
                answered => return answered,
            }
        }
        let sender = self.connect().await?;
        self.send(sender, self.request(event, &body)?).await
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn deliver(&self, event: &OutboxEvent) -> Result<(), DeliveryError> {
        match tokio::time::timeout(self.timeout, self.post(event)).await {
            Ok(answered) => answered,
            Err(_) => Err(DeliveryError::Timeout),
        }
    }
}
