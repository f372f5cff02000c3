//! A response's body on its way to the client, watched to its last byte.
//!
//! The outside of every body: hyper polls it when the client's connection has room for more. What is being streamed can be cut off from
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

use super::observe::Watch;
use crate::{
    body::{Body, BodyError},
    spool::{Budget, Spooled},
    upstream::holder::{Download, MinRate},
};

/// A response's body with its watch.
#[derive(Debug)]
pub struct Observed {
    body: Watched,
    watch: Watch,
}

#[derive(Debug)]
enum Watched {
    /// All here: it holds nothing that anybody else could want.
    Whole(Body),
    /// Still coming; its client lists it too.
    Streaming(Rc<Sending>),
}

/// A response that is being sent piece by piece.
#[derive(Debug)]
pub struct Sending {
    body: RefCell<Body>,
    /// How much of it may be kept for a client that is slow.
    buffer: u64,
    /// When the client's side took the last piece; `None` while it waits for the next, which is the upstream's time and not its own.
    taken: Cell<Option<Instant>>,
    /// How much longer than the least rate allows the client took for the pieces before; never below zero, or what it read quickly would
    /// let it stall later.
    behind: Cell<Duration>,
    /// Bytes of the last piece.
    piece: Cell<u64>,
    rate: MinRate,
    is_cut: Cell<bool>,
}

impl Observed {
    pub(super) fn new(mut watch: Watch, body: Body) -> Self {
        // A body without bytes is complete before hyper looks at it.
        watch.is_complete = body.is_end_stream();
        let body = match body {
            whole @ Body::Full(_) => Watched::Whole(whole),
            streaming => {
                let holder = match &streaming {
                    Body::Upstream(body) => body.holder().cloned(),
                    Body::Full(_) | Body::Spooled(_) | Body::Handler(_) => None,
                };
                let sending = Rc::new(Sending {
                    body: RefCell::new(streaming),
                    buffer: watch.response_buffer(),
                    // A client may leave no room for even the first piece.
                    taken: Cell::new(Some(Instant::now())),
                    behind: Cell::default(),
                    piece: Cell::default(),
                    rate: watch.min_rate(),
                    is_cut: Cell::new(false),
                });
                if let Some(holder) = holder {
                    let download: Rc<dyn Download> = Rc::clone(&sending) as _;
                    holder.downloads(Rc::downgrade(&download));
                }
                let all = &watch.client.sending;
                all.borrow_mut().push(Rc::clone(&sending));
                Watched::Streaming(sending)
            }
        };
        Self { body, watch }
    }
}

impl Sending {
    /// Cuts it off if the client has taken nothing for this long, or is this much behind the least rate, which frees the upstream's
    /// connection. True if it is cut off, now or before.
    pub fn is_cut_after(&self, now: Instant, allowed: Duration, rate: MinRate) -> bool {
        if self.late(now, rate) >= allowed {
            self.cut();
        }
        self.is_cut.get()
    }

    /// Takes the answer off the upstream's connection if its client has taken nothing for this long.
    pub fn spool_after(self: &Rc<Self>, now: Instant, allowed: Duration, budget: &Rc<Budget>) {
        let mut body = self.body.borrow_mut();
        if self.buffer == 0 || self.pause(now) < allowed || !matches!(*body, Body::Upstream(_)) {
            return;
        }
        if let Body::Upstream(upstream) = std::mem::replace(&mut *body, Body::EMPTY) {
            let download: Rc<dyn Download> = Rc::clone(self) as _;
            let reader = Rc::downgrade(&download);
            let spooled = Spooled::begin(upstream, self.buffer, Rc::clone(budget), reader);
            *body = Body::Spooled(Box::new(spooled));
        }
    }

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
            self.behind.set(self.rate.late(took, self.piece.get()));
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

impl Download for Sending {
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
            all.retain(|other| !Rc::ptr_eq(other, sending));
        }
    }
}
