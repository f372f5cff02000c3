//! Ends a connection so that its last answer arrives (RFC 9112 9.6): the write side first, then what the client still sends is read and
//! thrown away for a while. Closed at once, a connection with unread bytes is reset, and the reset overtakes the answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

/// The longest that is waited for the client's end, and the most that is read meanwhile.
const LONGEST: Duration = Duration::from_secs(5);
const MOST: usize = 16 << 20;

/// A connection that may end while its client still writes.
#[derive(Debug)]
pub(super) struct Lingering<I> {
    io: I,
    /// Whether the last request has a body, which the client may still be sending.
    uploads: Arc<AtomicBool>,
    /// Begun once the write side is closed.
    until: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl<I> Lingering<I> {
    /// `uploads` says whether the end needs this at all.
    pub(super) fn new(io: I, uploads: Arc<AtomicBool>) -> Self {
        Self {
            io,
            uploads,
            until: None,
            read: 0,
        }
    }
}

impl<I: Read + Unpin> Read for Lingering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: Read + Write + Unpin> Write for Lingering<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.uploads.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(LONGEST)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut piece = [0; 8 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut piece);
            match ready!(Pin::new(&mut this.io).poll_read(cx, buf.unfilled())) {
                Ok(()) if !buf.filled().is_empty() && this.read < MOST => {
                    this.read += buf.filled().len();
                }
                // Its end, its error, or more than anybody sends by mistake.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
