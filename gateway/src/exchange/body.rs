//! The body of an answer on its way to the client.
//!
//! It streams: a frame is pulled only when the client's side has room, so a slow reader slows its writer and nothing piles up here. A plain
//! enum instead of a boxed body: most responses are one buffer that is already here.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    http::BodyError,
    upstream::{Spooled, UpstreamBody},
};

#[derive(Debug)]
pub(crate) enum Body {
    /// All of it, in hand. `None` once it is sent, or when there was none.
    Full(Option<Bytes>),
    /// Being received from an upstream.
    Upstream(Box<UpstreamBody>),
    /// Taken off the upstream's connection, because its reader is slow.
    Spooled(Box<Spooled>),
    /// Made by the sale or payment router.
    Handler(axum::body::Body),
}

impl Body {
    /// A body that is all here.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    pub(crate) const EMPTY: Self = Self::Full(None);
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
