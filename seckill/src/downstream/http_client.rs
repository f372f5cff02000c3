//! One POST to the shop over plain HTTP/1.1: kept connections, bounded answers. [`super::HttpSink`] decides when.

use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{DeliveryError, SinkError};

use crate::locks::Locked;

/// Connections kept for the next event; the requests in flight bound those in use.
const MAX_IDLE: usize = 32;
/// The answer's body says nothing here; a longer one costs its connection.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The shop's endpoint, taken apart.
pub(super) struct HttpClient {
    /// Host and port to connect to.
    host: String,
    port: u16,
    /// What the `Host` header says.
    pub(super) authority: String,
    pub(super) path: String,
    /// Connections that answered and were left open. A `std` lock: held for a push or a pop.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl HttpClient {
    pub(super) fn try_new(url: &str) -> Result<Self, SinkError> {
        let uri = url.parse::<Uri>().ok();
        let authority = uri
            .as_ref()
            .filter(|uri| uri.scheme_str() == Some("http"))
            .and_then(Uri::authority)
            // A user would be sent nowhere, and would stand in the `Host` header.
            .filter(|authority| !authority.as_str().contains('@'));
        let (Some(uri), Some(authority)) = (&uri, authority) else {
            let shown = url.rsplit('@').next().unwrap_or_default().to_owned();
            return Err(SinkError::Url(shown, "http://HOST:PORT/PATH"));
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
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Sends a request and reads the answer to its end.
    pub(super) async fn send(
        &self,
        request: impl Fn() -> Result<Request<Full<Bytes>>, DeliveryError>,
    ) -> Result<Response<()>, DeliveryError> {
        if let Some(sender) = self.take_idle() {
            match self.send_on(sender, request()?).await {
                // The shop may have closed the kept connection meanwhile; the event's id makes a second try harmless.
                Err(DeliveryError::Broken(_)) => {}
                answered => return answered,
            }
        }
        let sender = self.connect().await?;
        self.send_on(sender, request()?).await
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

    async fn send_on(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<()>, DeliveryError> {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| DeliveryError::Broken(error.to_string()))?;
        let (parts, body) = answer.into_parts();
        // The answer has to be read to its end before the connection can carry another event.
        if Limited::new(body, MAX_ANSWER_BYTES).collect().await.is_ok() {
            // Ready only if the shop leaves the connection open.
            if sender.ready().await.is_ok() {
                self.keep(sender);
            }
        }
        Ok(Response::from_parts(parts, ()))
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.locked();
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.locked();
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }
}
