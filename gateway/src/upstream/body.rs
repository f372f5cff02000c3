//! A response's body on its way from an endpoint: usually one buffer that came with the header, else a stream.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{Lease, holder::Holder};
use crate::http::BodyError;

/// What is known of a body right after the header.
#[derive(Debug)]
pub enum Received {
    /// All of it came with the header; the connection is already back in its pool.
    Whole(Bytes),
    /// More is to come.
    Streaming(Box<UpstreamBody>),
    /// It broke before its first piece, so nothing of the answer is worth passing on.
    Broken,
}

/// A body that is still being received. It drives its connection, and returns it to the pool at its end.
#[derive(Debug)]
pub struct UpstreamBody {
    /// What came with the header.
    first: Option<Bytes>,
    /// What was there right behind it.
    second: Option<Result<Frame<Bytes>, hyper::Error>>,
    incoming: Incoming,
    /// `None` once the connection is back in its pool, or broken.
    lease: Option<Lease>,
    /// The longest pause between two frames.
    pause: Duration,
}

/// Looks at what came with the header.
pub fn receive(
    mut incoming: Incoming,
    mut lease: Lease,
    pause: Duration,
    now: Instant,
) -> Received {
    let mut no_waker = Context::from_waker(Waker::noop());
    let mut first = None;
    let mut second = None;
    let mut is_whole = incoming.is_end_stream();
    if !is_whole {
        match Pin::new(&mut incoming).poll_frame(&mut no_waker) {
            Poll::Ready(Some(Ok(frame))) => {
                // Trailers come after the end of the data only, so a first frame is data.
                first = frame.into_data().ok();
                is_whole = incoming.is_end_stream();
                if !is_whole {
                    // The end of a chunked body may be here too; the driver has not looked since the first piece was taken.
                    let _ = lease.poll_driver(&mut no_waker);
                    match Pin::new(&mut incoming).poll_frame(&mut no_waker) {
                        Poll::Ready(None) => is_whole = true,
                        Poll::Ready(frame) => second = frame,
                        Poll::Pending => {}
                    }
                }
            }
            // hyper says so once; what is asked of this body later ends as if it were whole (INV-EDGE-3).
            Poll::Ready(Some(Err(_))) => return Received::Broken,
            Poll::Ready(None) => is_whole = true,
            Poll::Pending => {}
        }
    }
    if is_whole {
        lease.release(now);
        return Received::Whole(first.unwrap_or_default());
    }
    lease.timer().set(now + pause);
    Received::Streaming(Box::new(UpstreamBody {
        first,
        second,
        incoming,
        lease: Some(lease),
        pause,
    }))
}

impl UpstreamBody {
    /// Who holds the place of the connection it comes on, while it does.
    pub fn holder(&self) -> Option<&Rc<Holder>> {
        self.lease.as_ref().map(Lease::holder)
    }

    /// Passes a frame on; at the last one the connection goes back to its pool.
    fn pass(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let now = Instant::now();
        match &frame {
            Some(Ok(_)) if !self.incoming.is_end_stream() => {
                if let Some(lease) = &mut self.lease {
                    lease.timer().set(now + self.pause);
                }
            }
            Some(Ok(_)) | None => {
                if let Some(lease) = self.lease.take() {
                    lease.release(now);
                }
            }
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Upstream)))
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(second) = this.second.take() {
            return this.pass(Some(second));
        }
        // Only the driver fills `incoming`, and it is polled right here, so the frame needs no waker of its own.
        let mut no_waker = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(&mut no_waker) {
            return this.pass(frame);
        }
        let Some(lease) = &mut this.lease else {
            return Poll::Ready(None);
        };
        let is_over = lease.poll_driver(cx).is_ready();
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(&mut no_waker) {
            return this.pass(frame);
        }
        if is_over {
            // The driver always ends a body before it ends itself.
            this.lease = None;
            return Poll::Ready(None);
        }
        if lease.timer().poll(cx).is_ready() {
            this.lease = None;
            return Poll::Ready(Some(Err(BodyError::UpstreamTimeout)));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.second.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let second = self
            .second
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref());
        let held = self.first.as_ref().map_or(0, Bytes::len) + second.map_or(0, Bytes::len);
        match self.incoming.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(held as u64 + rest),
            None => SizeHint::default(),
        }
    }
}
