//! One HTTP request on a connection of its own: whatever breaks, it breaks this request alone.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Longer than the gateway's own deadline, short enough to leave time for another try.
const TIMEOUT: Duration = Duration::from_millis(2_500);
const LARGEST: usize = 16 << 20;

/// An answer.
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Reply {
    /// A text field of the body.
    pub fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

/// A request in the making.
pub struct Ask<'a> {
    pub to: SocketAddr,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, &'a str)>,
    pub body: String,
}

/// Sends it. Without an answer, says why.
pub async fn send(ask: Ask<'_>) -> Result<Reply, &'static str> {
    match tokio::time::timeout(TIMEOUT, exchange(ask)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(_)) => Err("broken"),
        Err(_) => Err("timeout"),
    }
}

async fn exchange(ask: Ask<'_>) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(ask.to).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header(header::HOST, ask.to.to_string());
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(ask.body)))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST)
            .collect()
            .await?
            .to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Reply { status, body })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        // The server may close right behind the answer, which then is already here.
        _ = &mut connection => exchange.await,
    }
}
