//! The client's body on its way to an upstream or a handler: bounded in bytes and in time, and watched.
//!
//! It streams: a frame is pulled from the client only when the other side has room, so a slow reader slows its writer and nothing piles up.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{
    MinRate,
    upload::{Progress, Stage},
};

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
    /// Shared with the side that waits for the response; `None` for an empty body, which cannot fail.
    progress: Option<Arc<Progress>>,
}

/// Of an answer that was made before all of the request's body was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unread;

/// Why a request's body broke off; the client is at fault.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// More bytes than the route allows.
    #[error("request body exceeds its limit")]
    TooLarge,
    /// A pause longer than `server.body_timeout`.
    #[error("client paused for longer than body_timeout")]
    TimedOut,
    #[error("client broke off: {0}")]
    Client(#[from] hyper::Error),
}

impl RequestBody {
    /// A body without bytes.
    pub fn empty() -> Self {
        Self {
            ahead: VecDeque::new(),
            incoming: None,
            left: u64::MAX,
            pause: Duration::MAX,
            is_per_frame: true,
            rate: MinRate(u64::MAX),
            timer: None,
            progress: None,
        }
    }

    /// A body that is all here.
    #[cfg(test)]
    pub fn full(bytes: Bytes) -> Self {
        let progress = (!bytes.is_empty()).then(Arc::default);
        Self {
            ahead: VecDeque::from_iter((!bytes.is_empty()).then_some(bytes)),
            progress,
            ..Self::empty()
        }
    }

    /// Bounds it: so many bytes, and a client that may pause for `pause` at a time and be as much behind the least rate.
    pub fn bounded(self, limit: u64, pause: Duration, rate: MinRate) -> Self {
        Self {
            left: limit,
            pause,
            rate,
            ..self
        }
    }

    /// Bounds it for a handler, whose bodies are small: all of it has to come within `total`, however evenly it drips.
    pub fn within(self, total: Duration) -> Self {
        Self {
            pause: total,
            is_per_frame: false,
            ..self
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

/// What hyper received; without bounds until it is given some.
impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        Self {
            progress: (!incoming.is_end_stream()).then(Arc::default),
            incoming: Some(incoming),
            ..Self::empty()
        }
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
