//! Bodies on their way through: the client's towards an upstream or handler, and the answer's towards the client.
//!
//! Both stream: a frame is pulled from one side only when the other side has room, so a slow reader slows its writer and
//! nothing piles up here. Plain enums and structs instead of boxed bodies: most responses are one buffer that is already here.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::upstream::UpstreamBody;

/// A response's body.
#[derive(Debug)]
pub enum Body {
    /// All of it, in hand. `None` once it is sent, or when there was none.
    Full(Option<Bytes>),
    /// Being received from an upstream.
    Upstream(Box<UpstreamBody>),
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
            Self::Handler(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Handler),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Handler(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(body) => body.size_hint(),
            Self::Handler(body) => body.size_hint(),
        }
    }
}

/// A request's body, with its limit and its clock.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` for a request that is sent again, which never had one.
    incoming: Option<Incoming>,
    /// Bytes that may still come.
    left: u64,
    /// The longest pause between two frames, or the time for all of them.
    pause: Duration,
    /// Whether a frame begins a new pause.
    is_per_frame: bool,
    /// Made at the first pause, re-used for later ones.
    timer: Option<Pin<Box<Sleep>>>,
    /// Shared with whoever waits for the response; `None` for an empty body, which cannot fail.
    progress: Option<Arc<Progress>>,
}

/// How far a request's body has come, for the side that waits for the response.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    /// When the last piece was handed over.
    done_at: OnceLock<Instant>,
}

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

    fn reach(&self, stage: Stage) {
        if stage == Stage::Done {
            // The last frame and the end behind it both say so; the first is meant.
            self.done_at.get_or_init(Instant::now);
        }
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

impl RequestBody {
    /// Wraps what hyper received.
    pub fn new(incoming: Incoming, limit: u64, pause: Duration) -> Self {
        let progress = (!incoming.is_end_stream()).then(Arc::default);
        Self {
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
            ..Self::new(incoming, limit, total)
        }
    }

    /// No body at all.
    pub fn empty() -> Self {
        Self {
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

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let is_last = incoming.is_end_stream();
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
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
                match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        if let (true, Some(progress)) = (is_last, &this.progress) {
                            progress.reach(Stage::Done);
                        }
                        Some(Ok(frame))
                    }
                    None => Some(Err(this.fail(Stage::TooLarge, RequestBodyError::TooLarge))),
                }
            }
            Some(Err(error)) => Some(Err(this.fail(Stage::Broken, error.into()))),
            None => {
                if let Some(progress) = &this.progress {
                    progress.reach(Stage::Done);
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
