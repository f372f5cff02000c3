//! The layer that refuses a body by the length it announces. What is not announced is cut off while it streams.

use std::{future::ready, time::Duration};

use futures_util::future::Either;
use http::{Response, header::CONTENT_LENGTH};
use http_body_util::BodyExt;

use super::Handle;
use crate::{
    exchange::{Body, Exchange},
    http::{Problem, Protocol, RequestBody},
};

/// How much of a refused HTTP/2 body is read, and for how long.
const DISCARD_BYTES: usize = 16 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Reads a refused body and throws it away. Dropped unread it would reset the stream, and clients (curl 7.88 among them) then
/// report a broken stream instead of the 413 that they were sent.
async fn discard(mut body: RequestBody) {
    let all = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) else {
                return;
            };
            left = rest;
        }
    };
    // A client that sends more, or slower, gets the reset.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// Refuses bodies that are announced as too large.
#[derive(Debug)]
pub(super) struct BodyLimit<S> {
    inner: S,
}

impl<S> BodyLimit<S> {
    /// Around the other layers.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Handle> Handle for BodyLimit<S> {
    fn handle(&self, exchange: Exchange) -> impl Future<Output = Response<Body>> {
        let announced = exchange
            .head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .unwrap_or(0);
        let route = exchange.route.as_ref();
        if route.is_none_or(|route| announced <= route.max_body) {
            return Either::Right(self.inner.handle(exchange));
        }
        if exchange.client.protocol == Protocol::H2 {
            tokio::task::spawn_local(discard(exchange.body));
        }
        Either::Left(ready(Problem::BodyTooLarge.response()))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::layers::testing::{Echo, route};

    #[tokio::test]
    async fn a_body_is_refused_by_the_length_it_announces() {
        for (announced, status) in [("10", 200), ("11", 413), ("none", 200)] {
            let request = Request::post("/").header("content-length", announced);
            let mut exchange = Exchange::for_test(request.body("x").unwrap());
            exchange.route = Some(route(|route| route.max_body = 10));
            let answer = BodyLimit::new(Echo).handle(exchange).await;
            assert_eq!(answer.status(), status, "{announced}");
        }
    }
}
