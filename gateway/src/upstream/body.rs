//! A response's body on its way from an endpoint: usually one buffer that came with the header, else a stream.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Lease;
use crate::body::BodyError;

/// What is known of a body right after the header.
#[derive(Debug)]
pub enum Received {
    /// All of it came with the header; the connection is already back in its pool.
    Whole(Bytes),
    /// More is to come.
    Streaming(Box<UpstreamBody>),
}

/// A body that is still being received. It drives its connection, and returns it to the pool at its end.
#[derive(Debug)]
pub struct UpstreamBody {
    /// The frame that came with the header.
    first: Option<Bytes>,
    incoming: Incoming,
    /// `None` once the connection is back in its pool, or broken.
    lease: Option<Lease>,
    /// The longest pause between two frames.
    pause: Duration,
}

/// Looks at what came with the header.
pub fn receive(mut incoming: Incoming, lease: Lease, pause: Duration, now: Instant) -> Received {
    let mut no_waker = Context::from_waker(Waker::noop());
    let mut lease = lease;
    let mut first = None;
    if !incoming.is_end_stream() {
        if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut incoming).poll_frame(&mut no_waker) {
            // Trailers cannot come before data was seen to end, so a first frame is data.
            first = frame.into_data().ok();
        }
        if first.is_some() && !incoming.is_end_stream() {
            // Of a chunked body the end may be here too; the driver has not looked since the first piece was taken.
            let _ = lease.poll_driver(&mut no_waker);
            if let Poll::Ready(None) = Pin::new(&mut incoming).poll_frame_peek(&mut no_waker) {
                lease.release(now);
                return Received::Whole(first.unwrap_or_default());
            }
        }
    }
    if incoming.is_end_stream() {
        lease.release(now);
        return Received::Whole(first.unwrap_or_default());
    }
    lease.timer().set(now + pause);
    Received::Streaming(Box::new(UpstreamBody {
        first,
        incoming,
        lease: Some(lease),
        pause,
    }))
}
