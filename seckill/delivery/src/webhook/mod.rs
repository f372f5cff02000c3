//! Delivers each event as a signed POST to the shop: never more at once and never faster than the shop can take, and not at all before
//! its `Retry-After` is over.

mod client;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::Full;
use limiter::rate::{Decision, RateKey, RateLimiter};
use tokio::time::Instant;

use self::client::WebhookClient;
use super::{
    Delivery, DeliveryError, Event, RECONNECT, SIGNATURE_HEADER, Sink, SinkError, SinkTraits,
    WallClock, WebhookOptions, pause::Pause, sign,
};

/// Upper bound for `Retry-After`: a header with a slip in it must not end all deliveries.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// For a shop that answers 429 and does not say for how long.
const RETRY_AFTER_TOO_MANY: Duration = Duration::from_secs(1);

/// The shop's endpoint.
pub(super) struct WebhookSink {
    client: WebhookClient,
    url: Uri,
    secret: Vec<u8>,
    clock: WallClock,
    timeout: Duration,
    in_flight: NonZeroUsize,
    /// One bucket: the shop's.
    limiter: RateLimiter,
    /// A `std` lock: held for a few comparisons.
    pause: Mutex<Pause>,
}

impl WebhookSink {
    /// Reads the system's authorities if the options name none. `timeout` bounds one delivery, connecting included.
    pub(super) fn try_new(
        options: &WebhookOptions,
        clock: WallClock,
        timeout: Duration,
    ) -> Result<Self, SinkError> {
        let tls = options.tls.as_ref().map(|tls| tls.client()).transpose()?;
        Ok(Self {
            client: WebhookClient::new(tls),
            url: options.url.clone(),
            secret: options.secret.clone(),
            clock,
            timeout,
            in_flight: options.in_flight,
            limiter: RateLimiter::new(options.quota, NonZeroUsize::MIN, Instant::now()),
            pause: Mutex::new(Pause::new(RECONNECT)),
        })
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, event: &Event) -> Result<Request<Full<Bytes>>, DeliveryError> {
        let signature = sign(&self.secret, (self.clock)() / 1000, &event.body);
        Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("penstock/", env!("CARGO_PKG_VERSION")),
            )
            .header("penstock-event-id", &event.id)
            .header(SIGNATURE_HEADER, signature)
            .body(Full::new(event.body.clone()))
            .map_err(|error| DeliveryError::Refused(error.to_string()))
    }

    async fn post(&self, event: &Event) -> Delivery {
        let answer = self.client.send(self.request(event)?).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(DeliveryError::Status {
            status: answer.status().as_u16(),
            retry_after: retry_after(answer.status(), answer.headers(), (self.clock)()),
        })
    }

    /// What an outcome says about the shop as a whole.
    fn note(&self, outcome: &Delivery) {
        let now = Instant::now();
        let mut pause = self.pause();
        match outcome {
            Err(DeliveryError::Unreachable(_)) => pause.failed(now, rand::random()),
            Err(DeliveryError::Timeout | DeliveryError::Broken(_)) => {}
            Ok(()) | Err(_) => pause.worked(),
        }
        if let Err(DeliveryError::Status {
            retry_after: Some(wait),
            ..
        }) = outcome
        {
            pause.at_least(now + *wait);
        }
    }
}

#[async_trait]
impl Sink for WebhookSink {
    fn traits(&self) -> SinkTraits {
        SinkTraits {
            calls: self.in_flight,
            batch: NonZeroUsize::MIN,
            patience: self.timeout,
        }
    }

    fn admit(&self, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.pause().ends(now) {
            return Err(until);
        }
        match self.limiter.check(RateKey::SHARED, now) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Limited(limited) => Err(now + limited.retry_after),
        }
    }

    async fn deliver(&self, events: &[Event]) -> Vec<Delivery> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let outcome = match tokio::time::timeout(self.timeout, self.post(event)).await {
                Ok(answered) => answered,
                Err(_) => Err(DeliveryError::Timeout),
            };
            self.note(&outcome);
            outcomes.push(outcome);
        }
        outcomes
    }
}

/// How long the shop asks to be left alone. Any answer may say so (RFC 9110, 10.2.3); 429 means it without saying.
fn retry_after(status: StatusCode, headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let said = headers.get(header::RETRY_AFTER).and_then(|value| {
        let text = value.to_str().ok()?.trim();
        match text.parse::<NonZeroU32>() {
            Ok(seconds) => Some(Duration::from_secs(u64::from(seconds.get()))),
            Err(_) => {
                let date = httpdate::parse_http_date(text).ok()?;
                let now = UNIX_EPOCH + Duration::from_millis(now_ms);
                date.duration_since(now).ok()
            }
        }
    });
    let default = (status == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_TOO_MANY);
    said.or(default).map(|wait| wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let wait = |status: u16, text: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            }
            // Sun, 06 Nov 1994 08:49:37 GMT
            retry_after(
                StatusCode::from_u16(status).unwrap(),
                &headers,
                784_111_777_000,
            )
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(wait(503, Some("120")), seconds(120));
        assert_eq!(
            wait(429, Some("Sun, 06 Nov 1994 08:50:07 GMT")),
            seconds(30)
        );
        assert_eq!(wait(503, Some("86400")), seconds(300));
        assert_eq!(wait(503, Some("4294967296")), None);
        assert_eq!(wait(503, Some("Sun, 06 Nov 1994 08:49:00 GMT")), None);
        assert_eq!(wait(503, Some("soon")), None);
        assert_eq!((wait(503, None), wait(500, None)), (None, None));
        assert_eq!(wait(429, None), seconds(1));
        assert_eq!(wait(429, Some("0")), seconds(1));
    }
}
