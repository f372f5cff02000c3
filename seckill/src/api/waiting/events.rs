//! `GET /v1/orders/{order}/events`: the changes of an order as server-sent events (WHATWG HTML 9.2).
//!
//! The id of an event is the order's version, so a client that comes again with `Last-Event-ID`, here or at another node, misses
//! nothing and hears nothing twice. The stream ends after a final status, at a drain, and after its longest life; a client that
//! comes again after a final status gets 204, which tells an `EventSource` to stop.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::{
    super::{
        Api, extract,
        orders::{order_document, own_order},
        problem::{Code, Problem},
    },
    End, Held, Kind, WaitPermit,
};
use crate::{
    engine::FoundOrder,
    ledger::{OrderSubscription, Standing, WatchKey},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx in front of us buffers answers unless told otherwise.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Every stream begins with it: how long a client waits before it comes again.
const RETRY: &str = "retry: 2000\n\n";
const COMMENT: &[u8] = b":\n\n";

/// A stream in mid-life.
struct Events {
    api: Arc<Api>,
    subscription: OrderSubscription,
    served: Standing,
    /// To be sent before anything is waited for.
    first: Option<Bytes>,
    /// Gone when the stream has ended.
    permit: Option<WaitPermit>,
    until: Instant,
}

pub(in crate::api) async fn events(
    State(api): State<Arc<Api>>,
    order: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = last_event_id(&headers)?;
    let (id, found) = own_order(&api, &extract::path(order)?, &headers).await?;
    let standing = api.waiting.serve(&found);
    if standing.status.is_final() && last >= standing.version {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    if api.waiting.draining.is_cancelled() {
        let detail = "this node is about to stop; come again";
        return Err(Problem::new(Code::Unavailable, detail).retry_after_ms(1_000));
    }
    let mut permit = Some(api.waiting.enter(Kind::Events, found.buyer())?);
    let mut first = RETRY.to_owned();
    let mut served = standing;
    if standing.version > last {
        first.push_str(&event(&api, &found, standing));
        if standing.status.is_final() {
            permit
                .take()
                .into_iter()
                .for_each(|permit| permit.end(End::Changed));
        }
    } else {
        // Another node was ahead of this one by a moment.
        served.version = last;
    }
    let subscription = api
        .engine
        .ledger()
        .subscribe(WatchKey::Order(id), Some(served));
    let until = Instant::now() + api.waiting.config.stream_max;
    let events = Events {
        api,
        subscription,
        served,
        first: Some(first.into()),
        permit,
        until,
    };
    let pieces = stream::unfold(events, |mut events| async move {
        let piece = events.next().await?;
        Some((Ok::<_, Infallible>(piece), events))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (X_ACCEL_BUFFERING, "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response.extensions_mut().insert(Held::Stream);
    Ok(response)
}

impl Events {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let waiting = &self.api.waiting;
        // Without a permit the last event was sent.
        self.permit.as_ref()?;
        let heartbeat = (Instant::now() + waiting.config.heartbeat).min(self.until);
        let end = tokio::select! {
            biased;
            order = self.subscription.after(Some(self.served)) => {
                let found = FoundOrder::Settled(Box::new((*order).clone()));
                self.served = waiting.serve(&found);
                if self.served.status.is_final() {
                    self.end(End::Changed);
                }
                return Some(event(&self.api, &found, self.served).into());
            }
            () = waiting.drained() => End::Drained,
            () = tokio::time::sleep_until(heartbeat) => {
                if Instant::now() < self.until {
                    return Some(Bytes::from_static(COMMENT));
                }
                End::Unchanged
            }
        };
        self.end(end);
        // A last piece, so that what lies between here and the buyer passes on all before it.
        Some(Bytes::from_static(COMMENT))
    }

    fn end(&mut self, end: End) {
        if let Some(permit) = self.permit.take() {
            permit.end(end);
        }
    }
}

fn event(api: &Api, found: &FoundOrder, standing: Standing) -> String {
    let document = order_document(api, found, standing);
    format!(
        "id: {}\nevent: order\ndata: {document}\n\n",
        standing.version
    )
}

/// The version that the client has heard; 0 if it comes for the first time.
fn last_event_id(headers: &HeaderMap) -> Result<u64, Problem> {
    match extract::one(headers, &LAST_EVENT_ID)? {
        None | Some("") => Ok(0),
        Some(text) => text.parse().map_err(|_| {
            let detail =
                format!("Last-Event-ID = {text:?}: must be the id of an event of this order");
            Problem::new(Code::InvalidRequest, detail)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_that_is_no_version_is_refused() {
        let read = |text: &'static str| {
            let headers = HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_static(text))]);
            last_event_id(&headers).map_err(|problem| problem.code())
        };
        assert_eq!((read(""), read("7")), (Ok(0), Ok(7)));
        for bad in ["-1", "x", "1.5", "18446744073709551616"] {
            assert_eq!(read(bad), Err(Code::InvalidRequest), "{bad}");
        }
    }
}
