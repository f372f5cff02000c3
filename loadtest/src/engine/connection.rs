//! The connection of one worker: its own HTTP/1.1 connection, or its place on a shared HTTP/2 connection.
//!
//! A connection that the server closed (idle timeout, GOAWAY, restart) is replaced, not reported: a buyer does not see it either.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::request::Body;
use super::stream::Stream;
use super::target::Target;
use crate::record::Recorder;

/// Answers we read are small; what is beyond this cannot be one of ours.
const MAX_BODY: usize = 64 * 1024;
/// Windows so large that the generator never holds the server back.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 1 << 24;

type H1Driver = http1::Connection<TokioIo<Stream>, Body>;

/// An answer came back whole.
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

/// No answer came back.
#[derive(Debug)]
pub(super) enum ConnectionError {
    /// No connection could be opened.
    NoConnection(String),
    /// The connection closed under the request; `sent` if the server may have seen it.
    Closed { sent: bool },
}

/// Opens connections to the target and counts them.
pub(super) struct Connector {
    pub target: Target,
    pub recorder: Rc<RefCell<Recorder>>,
}

impl Connector {
    /// Opens a connection and counts it. `again` if it replaces one.
    async fn open(&self, again: bool) -> Result<Stream, ConnectionError> {
        match self.target.connect().await {
            Ok(stream) => {
                let counts = &mut self.recorder.borrow_mut().counts;
                counts.connects += 1;
                counts.reconnects += u64::from(again);
                Ok(stream)
            }
            Err(error) => Err(self.failed(format!("{error:#}"))),
        }
    }

    fn failed(&self, error: String) -> ConnectionError {
        self.recorder.borrow_mut().counts.connects_failed += 1;
        ConnectionError::NoConnection(error)
    }
}

/// The connection of one worker.
pub(super) enum Connection {
    H1(H1Connection),
    H2(Rc<H2Connection>),
}

impl Connection {
    /// Opens the connection ahead of the first request.
    pub(super) async fn open(&mut self, connector: &Connector) -> Result<(), ConnectionError> {
        match self {
            Connection::H1(own) => own.open(connector).await,
            Connection::H2(shared) => shared.sender(connector).await.map(drop),
        }
    }

    /// Sends a request and reads the answer to its end. The body is kept only if `keep`.
    pub(super) async fn exchange(
        &mut self,
        connector: &Connector,
        request: Request<Body>,
        keep: bool,
    ) -> Result<Reply, ConnectionError> {
        match self {
            Connection::H1(own) => own.exchange(connector, request, keep).await,
            Connection::H2(shared) => shared.exchange(connector, request, keep).await,
        }
    }

    /// Gives up on the request under way: an HTTP/1.1 connection is of no use after that.
    pub(super) fn abandon(&mut self) {
        if let Connection::H1(own) = self {
            own.close();
        }
    }

    /// Keeps an idle connection alive, and notices when the server closes it.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) {
        if let Connection::H1(own) = self
            && let Some(connection) = &mut own.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            own.close();
        }
    }
}

/// A connection of its own, driven by the worker itself: one task for both, no wake-up in between.
#[derive(Default)]
pub(super) struct H1Connection {
    sender: Option<http1::SendRequest<Body>>,
    connection: Option<Pin<Box<H1Driver>>>,
    opened_before: bool,
}

impl H1Connection {
    async fn open(&mut self, connector: &Connector) -> Result<(), ConnectionError> {
        let stream = connector.open(self.opened_before).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connector.failed(error.to_string()))?;
        self.sender = Some(sender);
        self.connection = Some(Box::pin(connection));
        self.opened_before = true;
        Ok(())
    }

    fn close(&mut self) {
        self.sender = None;
        self.connection = None;
    }

    async fn exchange(
        &mut self,
        connector: &Connector,
        request: Request<Body>,
        keep: bool,
    ) -> Result<Reply, ConnectionError> {
        if self.connection.is_none() {
            self.open(connector).await?;
        }
        let result = self.exchange_open(request, keep).await;
        if result.is_err() {
            self.close();
        }
        result
    }

    async fn exchange_open(
        &mut self,
        request: Request<Body>,
        keep: bool,
    ) -> Result<Reply, ConnectionError> {
        let unsent = ConnectionError::Closed { sent: false };
        let Some(sender) = &mut self.sender else {
            return Err(unsent);
        };
        let connection = &mut self.connection;
        if drive(connection, sender.ready()).await.is_err() {
            return Err(unsent);
        }
        let response = drive(connection, sender.try_send_request(request))
            .await
            .map_err(|mut error| ConnectionError::Closed {
                sent: error.take_message().is_none(),
            })?;
        let status = response.status();
        let body = drive(connection, collect(response.into_body(), keep)).await?;
        Ok(Reply { status, body })
    }
}

/// Polls the connection together with what waits for it. A connection that ended is dropped at once, which answers
/// the tasks that still wait for it with an error.
async fn drive<F: Future>(connection: &mut Option<Pin<Box<H1Driver>>>, what: F) -> F::Output {
    let mut what = pin!(what);
    std::future::poll_fn(|cx| {
        if let Some(open) = connection
            && open.as_mut().poll(cx).is_ready()
        {
            *connection = None;
        }
        what.as_mut().poll(cx)
    })
    .await
}

/// An HTTP/2 connection that many workers share.
#[derive(Default)]
pub(super) struct H2Connection {
    sender: RefCell<Option<(http2::SendRequest<Body>, u64)>>,
    /// Counts the connections opened in this place, so that a late failure does not drop a younger one.
    generation: Cell<u64>,
    /// Held while opening: the other workers wait for the same connection.
    opening: Mutex<()>,
}

impl H2Connection {
    fn ready(&self) -> Option<(http2::SendRequest<Body>, u64)> {
        self.sender
            .borrow()
            .as_ref()
            .filter(|(sender, _)| !sender.is_closed())
            .cloned()
    }

    async fn sender(
        &self,
        connector: &Connector,
    ) -> Result<(http2::SendRequest<Body>, u64), ConnectionError> {
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let _opening = self.opening.lock().await;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let generation = self.generation.get();
        let stream = connector.open(generation > 0).await?;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connector.failed(error.to_string()))?;
        // Its end shows in the senders; there is nobody else to tell.
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        self.generation.set(generation + 1);
        *self.sender.borrow_mut() = Some((sender.clone(), generation + 1));
        Ok((sender, generation + 1))
    }

    async fn exchange(
        &self,
        connector: &Connector,
        request: Request<Body>,
        keep: bool,
    ) -> Result<Reply, ConnectionError> {
        let (mut sender, generation) = self.sender(connector).await?;
        match sender.try_send_request(request).await {
            Ok(response) => {
                let status = response.status();
                let body = collect(response.into_body(), keep).await?;
                Ok(Reply { status, body })
            }
            Err(mut error) => {
                let sent = error.take_message().is_none();
                // Refused before it was sent: the connection is going away (GOAWAY), take another.
                if !sent || sender.is_closed() {
                    self.forget(generation);
                }
                Err(ConnectionError::Closed { sent })
            }
        }
    }

    fn forget(&self, generation: u64) {
        let mut sender = self.sender.borrow_mut();
        if sender.as_ref().is_some_and(|(_, own)| *own == generation) {
            *sender = None;
        }
    }
}

/// Reads a body to its end, so that the connection is free again.
async fn collect(mut body: Incoming, keep: bool) -> Result<Bytes, ConnectionError> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ConnectionError::Closed { sent: true })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if !keep {
            continue;
        }
        // Nearly every answer is one frame, which is then dispatched on without a copy.
        if first.is_empty() && rest.is_none() {
            first = data;
            continue;
        }
        let whole = rest.get_or_insert_with(|| BytesMut::from(&first[..]));
        if whole.len() + data.len() <= MAX_BODY {
            whole.extend_from_slice(&data);
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// Runs HTTP/2's background work on the generator's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
