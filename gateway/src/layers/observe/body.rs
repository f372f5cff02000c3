//! A response's body on its way to the client, watched to its last byte.
//!
//! The outside of every body: the server polls it when the client's connection has room for more. What is being streamed can be cut off from
//! outside ([`Sending`]): a client that stops reading is never polled again, so its body could not end by itself.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::watch::Watch;
use crate::{
    connection::sending::Sending,
    exchange::Body,
    http::{BodyError, MinRate},
    upstream::{SpoolBudget, Spooled},
};

/// What holds for a client that reads slowly.
#[derive(Debug)]
pub(super) struct SlowReader {
    /// How much of the answer may be kept for it.
    pub(super) buffer: u64,
    /// What is kept for all of them.
    pub(super) budget: Rc<SpoolBudget>,
    /// How slow it may be.
    pub(super) rate: MinRate,
}

/// A response's body with its watch.
#[derive(Debug)]
pub(crate) struct Observed {
    body: Watched,
    watch: Watch,
}

#[derive(Debug)]
enum Watched {
    /// All here: it holds nothing that anybody else could want.
    Whole(Body),
    /// Still coming; its client lists it too.
    Streaming(Rc<Streamed>),
}

/// A response that is being sent piece by piece.
#[derive(Debug)]
struct Streamed {
    body: RefCell<Body>,
    reader: SlowReader,
    /// When the client's side took the last piece; `None` while it waits for the next, which is the upstream's time and not its own.
    taken: Cell<Option<Instant>>,
    /// How much longer than the least rate allows the client took for the pieces before; never below zero, or what it read quickly would
    /// let it stall later.
    behind: Cell<Duration>,
    /// Bytes of the last piece.
    piece: Cell<u64>,
    is_cut: Cell<bool>,
}

impl Observed {
    pub(super) fn new(mut watch: Watch, reader: SlowReader, body: Body) -> Self {
        // A body without bytes is complete before hyper looks at it.
        watch.is_complete = body.is_end_stream();
        let body = match body {
            whole @ Body::Full(_) => Watched::Whole(whole),
            streaming => {
                let holder = match &streaming {
                    Body::Upstream(body) => body.holder().cloned(),
                    Body::Full(_) | Body::Spooled(_) | Body::Handler(_) => None,
                };
                let streamed = Rc::new(Streamed {
                    body: RefCell::new(streaming),
                    reader,
                    // A client may leave no room for even the first piece.
                    taken: Cell::new(Some(Instant::now())),
                    behind: Cell::default(),
                    piece: Cell::default(),
                    is_cut: Cell::new(false),
                });
                let sending: Rc<dyn Sending> = Rc::clone(&streamed) as _;
                if let Some(holder) = holder {
                    holder.downloads(Rc::downgrade(&sending));
                }
                watch.client.sending.borrow_mut().push(sending);
                Watched::Streaming(streamed)
            }
        };
        Self { body, watch }
    }
}

impl Streamed {
    /// Since when the client has taken nothing.
    fn pause(&self, now: Instant) -> Duration {
        self.taken
            .get()
            .map_or(Duration::ZERO, |taken| now.saturating_duration_since(taken))
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_cut.get() {
            return Poll::Ready(Some(Err(BodyError::ClientStalled)));
        }
        if let Some(taken) = self.taken.take() {
            let took = self.behind.get() + taken.elapsed();
            self.behind
                .set(self.reader.rate.late(took, self.piece.get()));
        }
        let frame = Pin::new(&mut *self.body.borrow_mut()).poll_frame(cx);
        self.taken.set(frame.is_ready().then(Instant::now));
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.piece.set(length as u64);
        }
        frame
    }
}

impl Sending for Streamed {
    fn late(&self, now: Instant, rate: MinRate) -> Duration {
        // Only while it waits for its client.
        match self.taken.get() {
            Some(_) => {
                let pause = self.pause(now);
                pause.max(rate.late(self.behind.get() + pause, self.piece.get()))
            }
            None => Duration::ZERO,
        }
    }

    fn cut(&self) {
        if !self.is_cut.replace(true) {
            self.body.replace(Body::EMPTY);
        }
    }

    fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    fn spool_after(self: Rc<Self>, now: Instant, pause: Duration) {
        let mut body = self.body.borrow_mut();
        let buffer = self.reader.buffer;
        if buffer == 0 || self.pause(now) < pause || !matches!(*body, Body::Upstream(_)) {
            return;
        }
        if let Body::Upstream(upstream) = std::mem::replace(&mut *body, Body::EMPTY) {
            let sending: Rc<dyn Sending> = Rc::clone(&self) as _;
            let budget = Rc::clone(&self.reader.budget);
            let spooled = Spooled::begin(upstream, buffer, budget, Rc::downgrade(&sending));
            *body = Body::Spooled(Box::new(spooled));
        }
    }
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.body {
            Watched::Whole(body) => Pin::new(body).poll_frame(cx),
            Watched::Streaming(sending) => sending.poll_frame(cx),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.watch.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.watch.is_complete = this.is_end_stream();
            }
            Poll::Ready(None) => this.watch.is_complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Watched::Whole(body) => body.is_end_stream(),
            // What was cut off is not over: the client must see that it broke.
            Watched::Streaming(sending) => {
                !sending.is_cut.get() && sending.body.borrow().is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Watched::Whole(body) => body.size_hint(),
            Watched::Streaming(sending) if sending.is_cut.get() => SizeHint::default(),
            Watched::Streaming(sending) => sending.body.borrow().size_hint(),
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Watched::Streaming(sending) = &self.body {
            let mut all = self.watch.client.sending.borrow_mut();
            let this = Rc::as_ptr(sending).cast::<()>();
            all.retain(|other| Rc::as_ptr(other).cast::<()>() != this);
        }
    }
}
