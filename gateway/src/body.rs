//! Bodies on their way through: the client's towards an upstream or handler, and the answer's towards the client.
//!
//! Both stream: a frame is pulled from one side only when the other side has room, so a slow reader slows its writer and
//! nothing piles up here. Plain enums and structs instead of boxed bodies: most responses are one buffer that is already here.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{
    spool::Spooled,
    upstream::{UpstreamBody, holder::MinRate},
};

/// A response's body.
#[derive(Debug)]
pub enum Body {
    /// All of it, in hand. `None` once it is sent, or when there was none.
    Full(Option<Bytes>),
    /// Being received from an upstream.
    Upstream(Box<UpstreamBody>),
    /// Taken off the upstream's connection, because its reader is slow.
    Spooled(Box<Spooled>),
    /// Made by the sale or payment router.
    Handler(axum::body::Body),
}

/// Why a response's body broke off. The client sees a cut connection or stream.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's connection failed in mid-body.
    #[error("upstream broke off: {0}")]
    Upstream(#[from] hyper::Error),
    /// The upstream paused for too long.
    #[error("upstream paused for longer than body_timeout")]
    UpstreamTimeout,
    /// The client took nothing for longer than `server.send_timeout`.
    #[error("client did not read for longer than send_timeout")]
    ClientStalled,
    /// What was kept of it for a slow reader was lost.
    #[error("temporary file: {0}")]
    Spool(#[source] std::io::Error),
    /// The handler's body failed.
    #[error("handler broke off: {0}")]
    Handler(#[from] axum::Error),
}

impl Body {
    /// A body that is all here.
    pub fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    /// No body.
    pub const EMPTY: Self = Self::Full(None);
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Spooled(body) => Pin::new(body).poll_frame(cx),
            Self::Handler(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Handler),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Spooled(body) => body.is_end_stream(),
            Self::Handler(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(body) => body.size_hint(),
            Self::Spooled(body) => body.size_hint(),
            Self::Handler(body) => body.size_hint(),
        }
    }
}

/// A request's body, with its limit and its clock.
#[derive(Debug)]
pub struct RequestBody {
    /// What was read before it was asked for, in order.
    ahead: VecDeque<Bytes>,
    /// `None` for a request that is sent again, which never had one.
    incoming: Option<Incoming>,
    /// Bytes that may still come.
    left: u64,
    /// The longest pause between two frames, or the time for all of them.
    pause: Duration,
    /// Whether a frame begins a new pause.
    is_per_frame: bool,
    /// How slowly it may come.
    rate: MinRate,
    /// Made at the first pause, re-used for later ones.
    timer: Option<Pin<Box<Sleep>>>,
    /// Shared with whoever waits for the response; `None` for an empty body, which cannot fail.
    progress: Option<Arc<Progress>>,
}

/// How far a request's body has come, for the side that waits for the response.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    /// How much longer than the least rate allows the client took for what has come, in microseconds; never below zero, or what it sent
    /// quickly would let it drip later.
    behind: AtomicU64,
    /// Since when the client has been waited for, in microseconds after [`EPOCH`]; 0 while it is not.
    waits_since: AtomicU64,
    /// When the last piece was handed over.
    done_at: OnceLock<Instant>,
}

/// What instants are counted from where they must fit into an atomic.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What [`Progress`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Frames are still to come.
    Sending,
    /// All was handed over.
    Done,
    /// It exceeded the limit.
    TooLarge,
    /// The client paused for too long.
    TimedOut,
    /// The client left.
    Broken,
}

/// Of an answer that was made before all of the request's body was read.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

/// Why a request's body broke off; the client is at fault.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// More bytes than the route allows.
    #[error("request body exceeds its limit")]
    TooLarge,
    /// A pause longer than `server.body_timeout`.
    #[error("client paused for longer than body_timeout")]
    TimedOut,
    /// The connection failed.
    #[error("client broke off: {0}")]
    Client(#[from] hyper::Error),
}

impl Progress {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Sending,
            1 => Stage::Done,
            2 => Stage::TooLarge,
            3 => Stage::TimedOut,
            _ => Stage::Broken,
        }
    }

    /// When all was handed over; the endpoint's time to answer counts from then.
    pub fn done_at(&self) -> Option<Instant> {
        self.done_at.get().copied()
    }

    /// How long the client has kept the upload waiting: for its next piece, or beyond what the least rate allows for all of them.
    pub fn late(&self, now: Instant, rate: MinRate) -> Duration {
        if self.stage() != Stage::Sending {
            return Duration::ZERO;
        }
        let behind = self.behind.load(Ordering::Relaxed);
        let waiting = match self.waits_since.load(Ordering::Relaxed) {
            0 => 0,
            since => micros(now).saturating_sub(since),
        };
        let waiting = Duration::from_micros(waiting);
        waiting.max(rate.late(Duration::from_micros(behind) + waiting, 0))
    }

    /// The client is waited for, from now on if it was not before.
    fn wait(&self) {
        if self.waits_since.load(Ordering::Relaxed) == 0 {
            self.waits_since
                .store(micros(Instant::now()), Ordering::Relaxed);
        }
    }

    /// This many bytes have come.
    fn take(&self, bytes: u64, rate: MinRate) {
        let since = self.waits_since.swap(0, Ordering::Relaxed);
        let waited = match since {
            0 => 0,
            since => micros(Instant::now()).saturating_sub(since),
        };
        let behind = Duration::from_micros(self.behind.load(Ordering::Relaxed) + waited);
        let behind = rate.late(behind, bytes).as_micros() as u64;
        self.behind.store(behind, Ordering::Relaxed);
    }

    fn reach(&self, stage: Stage) {
        if stage == Stage::Done {
            // The last frame and the end behind it both say so; the first is meant.
            self.done_at.get_or_init(Instant::now);
        }
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

/// Microseconds after [`EPOCH`], at least 1.
fn micros(now: Instant) -> u64 {
    now.saturating_duration_since(*EPOCH).as_micros() as u64 + 1
}

impl RequestBody {
    /// Wraps what hyper received. It may pause for `pause` at a time, and be as much behind the least rate.
    pub fn new(incoming: Incoming, limit: u64, pause: Duration, rate: MinRate) -> Self {
        let progress = (!incoming.is_end_stream()).then(Arc::default);
        Self {
            ahead: VecDeque::new(),
            rate,
            incoming: Some(incoming),
            left: limit,
            pause,
            is_per_frame: true,
            timer: None,
            progress,
        }
    }

    /// For a handler, whose bodies are small: all of it has to come within `total`, however evenly it drips.
    pub fn within(incoming: Incoming, limit: u64, total: Duration) -> Self {
        Self {
            is_per_frame: false,
            // The whole has one time; a rate adds nothing.
            ..Self::new(incoming, limit, total, MinRate(u64::MAX))
        }
    }

    /// No body at all.
    pub fn empty() -> Self {
        Self {
            ahead: VecDeque::new(),
            rate: MinRate(u64::MAX),
            incoming: None,
            left: 0,
            pause: Duration::ZERO,
            is_per_frame: true,
            timer: None,
            progress: None,
        }
    }

    /// `None` for an empty body.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    /// Reads until the end, or until this many bytes are here, so that nothing of an upstream is held meanwhile.
    pub async fn read_ahead(&mut self, most: usize) -> Result<(), RequestBodyError> {
        let mut held = 0;
        while held < most
            && self
                .incoming
                .as_ref()
                .is_some_and(|body| !body.is_end_stream())
        {
            match std::future::poll_fn(|cx| self.poll_client(cx)).await {
                Some(Ok(frame)) => {
                    // Trailers belong to the message's end, and are dropped there by hyper too.
                    let Ok(data) = frame.into_data() else { break };
                    held += data.len();
                    if !data.is_empty() {
                        self.ahead.push_back(data);
                    }
                }
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether all of it is here, and how much that is.
    pub fn whole(&self) -> Option<u64> {
        let is_here = self.incoming.as_ref().is_none_or(HttpBody::is_end_stream);
        is_here.then(|| self.ahead.iter().map(|piece| piece.len() as u64).sum())
    }

    fn fail(&mut self, stage: Stage, error: RequestBodyError) -> RequestBodyError {
        if let Some(progress) = &self.progress {
            progress.reach(stage);
        }
        error
    }

    /// Counts the pause; ready when it is too long.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pause = self.pause;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        timer.as_mut().poll(cx)
    }
}

impl RequestBody {
    /// The next piece from the client, within its bounds of size and time.
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let frame = match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if let Some(progress) = &this.progress {
                    progress.wait();
                }
                ready!(this.poll_pause(cx));
                return Poll::Ready(Some(Err(
                    this.fail(Stage::TimedOut, RequestBodyError::TimedOut)
                )));
            }
        };
        if let Some(timer) = &mut this.timer
            && this.is_per_frame
        {
            timer.as_mut().reset(Instant::now() + this.pause);
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let late = this.progress.as_ref().map_or(Duration::ZERO, |progress| {
                    progress.take(length, this.rate);
                    progress.late(Instant::now(), this.rate)
                });
                if this.is_per_frame && late >= this.pause {
                    let error = this.fail(Stage::TimedOut, RequestBodyError::TimedOut);
                    return Poll::Ready(Some(Err(error)));
                }
                match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(this.fail(Stage::TooLarge, RequestBodyError::TooLarge))),
                }
            }
            Some(Err(error)) => Some(Err(this.fail(Stage::Broken, error.into()))),
            None => None,
        })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        let frame = match this.ahead.pop_front() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None => ready!(this.poll_client(cx)),
        };
        let is_over = match &frame {
            Some(Ok(_)) => this.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if let (true, Some(progress)) = (is_over, &this.progress) {
            progress.reach(Stage::Done);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(whole) = self.whole() {
            return SizeHint::with_exact(whole);
        }
        let held = self
            .ahead
            .iter()
            .map(|piece| piece.len() as u64)
            .sum::<u64>();
        match self
            .incoming
            .as_ref()
            .and_then(|body| body.size_hint().exact())
        {
            Some(rest) => SizeHint::with_exact(held + rest),
            None => SizeHint::default(),
        }
    }
}
