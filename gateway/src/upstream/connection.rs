//! One HTTP/1.1 connection to an endpoint, driven by the task that uses it.
//!
//! hyper's client comes as a sender and a connection future, which is usually spawned as a task. Here both stay in one
//! value and the request's own task polls the connection: a request then costs no task switch, no wake-up across tasks,
//! and an idle connection costs nothing. What follows from it: a connection makes progress only while its
//! request (or its response's body) is polled, and an idle one learns of its end when it is next looked at.

use std::{
    fmt, io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use super::connect::{self, Stream};
use crate::http::{RequestBody, upload::Stage};

/// A response's body arrives in pieces of at most this, and a header must fit in it. hyper's default of 400 KiB would be what a slow
/// reader has to take within `server.send_timeout`.
const BUFFER_MAX: usize = 64 << 10;

/// A connection that can carry one request at a time.
pub struct Connection {
    sender: SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Stream>, RequestBody>,
    /// The driver has finished and must not be polled again.
    is_over: bool,
    timer: LazyTimer,
    /// Responses it has carried.
    served: u64,
}

/// Why no response came.
#[derive(Debug)]
pub enum SendError {
    /// The connection failed. `unsent` is the request if not a byte of it was written.
    Failed {
        /// hyper's account.
        error: hyper::Error,
        /// The request, if it may be sent again whatever it is.
        unsent: Option<Box<Request<RequestBody>>>,
    },
    /// No response in time.
    TimedOut,
}

impl Connection {
    /// Connects and prepares.
    pub(super) async fn try_connect(address: &str) -> io::Result<Self> {
        let stream = connect::connect(address).await?;
        // hyper's own bound of header lines, 100, has its place on the stack. Any other is an allocation for each response.
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver,
            is_over: false,
            timer: LazyTimer::new(),
            served: 0,
        })
    }

    /// Whether it has carried a request before, so that its other end may have closed it unseen.
    pub fn is_reused(&self) -> bool {
        self.served > 0
    }

    /// Whether the next request can be sent: the last one is over and the other end is still there, as far as is known.
    pub(super) fn is_ready(&mut self) -> bool {
        // No waker: nobody waits for an idle connection. The driver sees a close that has arrived, without a system call if
        // nothing has.
        let _ = self.poll_driver(&mut Context::from_waker(Waker::noop()));
        !self.is_over && self.sender.is_ready()
    }

    /// Moves bytes. Ready when the connection is over.
    pub(super) fn poll_driver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_over {
            // The driver's error has been told to the request it broke.
            self.is_over = Pin::new(&mut self.driver).poll(cx).is_ready();
        }
        if self.is_over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Sends a request and waits for the response's header. `timeout` counts from the last piece of the request's body.
    ///
    /// The request is taken from where it is: as an argument, each function on the way would have room for it in its future.
    pub async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        timeout: Duration,
        now: Instant,
    ) -> Result<Response<Incoming>, SendError> {
        let request = request.take().expect("a request to send");
        // `None` once the upload is over, and from the start if there is nothing to upload.
        let mut upload = request.body().progress();
        self.served += 1;
        self.timer.set(now + timeout);
        let mut answer = pin!(self.sender.try_send_request(request));
        let mut is_written = false;
        std::future::poll_fn(|cx| {
            // The first poll writes the request, and the answer cannot be there yet. Later polls come because something
            // arrived; driving without a waker first avoids being woken by our own taking of the answer.
            let wakers = [Waker::noop(), cx.waker()];
            let wakers = if is_written {
                &wakers[..]
            } else {
                &wakers[1..]
            };
            is_written = true;
            for waker in wakers {
                if !self.is_over {
                    let mut cx = Context::from_waker(waker);
                    self.is_over = Pin::new(&mut self.driver).poll(&mut cx).is_ready();
                }
                // The answer is set by the driver, so polling it needs no waker of its own.
                match answer
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                {
                    Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                    Poll::Ready(Err(mut error)) => {
                        let unsent = error.take_message().map(Box::new);
                        let error = error.into_error();
                        return Poll::Ready(Err(SendError::Failed { error, unsent }));
                    }
                    Poll::Pending => {}
                }
            }
            while self.timer.poll(cx).is_ready() {
                let Some(progress) = &upload else {
                    return Poll::Ready(Err(SendError::TimedOut));
                };
                match (progress.done_at(), progress.stage()) {
                    // The upload took a part of this time, which was not the endpoint's.
                    (Some(done_at), _) => {
                        self.timer.set(done_at + timeout);
                        upload = None;
                    }
                    // The client is still uploading, and has its own clock.
                    (None, Stage::Sending) => self.timer.set(Instant::now() + timeout),
                    (None, _) => return Poll::Ready(Err(SendError::TimedOut)),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The clock of the request in hand.
    pub(super) fn timer(&mut self) -> &mut LazyTimer {
        &mut self.timer
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_over", &self.is_over)
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

/// A timer for deadlines that nearly always move on before they come. Moving one is a plain store; the runtime's timer is
/// touched only when it fires, and then set to where the deadline is by now.
#[derive(Debug)]
pub(super) struct LazyTimer {
    deadline: Instant,
    /// Made at the first wait. Fires at the deadline or earlier.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    fn new() -> Self {
        Self {
            deadline: Instant::now(),
            sleep: None,
        }
    }

    /// Moves the deadline.
    pub(super) fn set(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Ready at the deadline.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moved_deadline_is_kept() {
        let start = Instant::now();
        let mut timer = LazyTimer::new();
        timer.set(start + Duration::from_secs(1));
        assert!(
            timer
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        timer.set(start + Duration::from_secs(5));
        std::future::poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        // Earlier than what the sleep waits for.
        timer.set(start + Duration::from_secs(60));
        assert!(
            timer
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        timer.set(start + Duration::from_secs(10));
        std::future::poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
