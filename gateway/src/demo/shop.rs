//! The sample shop of the demo: a separate listener in the same process, with product pages and the endpoint that
//! receives Penstock's events about settled, paid and released orders.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Form, Json, Router,
    body::Bytes,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing,
};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use serde::Deserialize;

const FRAME: &str = include_str!("shop.html");
const PRODUCT: &str = include_str!("product.html");
const SCRIPT: &str = include_str!("shop.js");
const STYLE: &str = include_str!("style.css");

/// The path of a product page, for the load's page views.
pub(super) const PRODUCT_PATH: &str = "/products/trail-shoe";
/// Where the shop takes events.
pub(super) const EVENTS_PATH: &str = "/penstock/events";

/// The events that the shop has received.
pub(super) struct Shop {
    key: hmac::Key,
    events: AtomicU64,
    forged: AtomicU64,
    /// Where it takes payments; set when the gateway is there.
    till: OnceLock<Till>,
}

/// The payment API as the shop's server uses it.
pub(super) struct Till {
    /// A plain listener of the gateway.
    pub(super) gateway: SocketAddr,
    /// The secret key.
    pub(super) api_key: String,
    /// What one order costs, in minor units.
    pub(super) price_minor: u64,
}

impl Shop {
    /// A shop that shares this secret with Penstock.
    pub(super) fn new(secret: &[u8]) -> Arc<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Arc::new(Self {
            key,
            events: AtomicU64::new(0),
            forged: AtomicU64::new(0),
            till: OnceLock::new(),
        })
    }

    /// From now on it takes payments.
    pub(super) fn open_till(&self, till: Till) {
        // It is opened once.
        let _ = self.till.set(till);
    }

    /// Events with a good signature, and events without one.
    pub(super) fn events(&self) -> (u64, u64) {
        (
            self.events.load(Ordering::Relaxed),
            self.forged.load(Ordering::Relaxed),
        )
    }

    /// Binds a free port of the loopback and serves there on the current runtime.
    pub(super) async fn serve(self: Arc<Self>) -> std::io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let typed = |kind: &'static str, body: &'static str| {
            move || async move { ([(header::CONTENT_TYPE, kind)], body) }
        };
        let home =
            format!("<h1>Today on sale</h1><p><a href=\"{PRODUCT_PATH}\">Trail shoe</a></p>");
        let router = Router::new()
            .route("/", routing::get(move || page(home.clone())))
            .route(PRODUCT_PATH, routing::get(|| page(PRODUCT.to_owned())))
            .route(
                "/shop.js",
                routing::get(typed("text/javascript; charset=utf-8", SCRIPT)),
            )
            .route(
                "/style.css",
                routing::get(typed("text/css; charset=utf-8", STYLE)),
            )
            .route(EVENTS_PATH, routing::post(event))
            .route("/pay", routing::post(pay))
            .with_state(self);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the sample shop stopped");
            }
        });
        Ok(address)
    }
}

/// What the page asks for.
#[derive(Deserialize)]
struct PayForm {
    order: String,
}

/// Pays an order with the test card: create and confirm in one call, the order's id as its idempotency key.
async fn pay(State(shop): State<Arc<Shop>>, Form(form): Form<PayForm>) -> Response {
    let Some(till) = shop.till.get() else {
        return problem("the shop takes no payments yet");
    };
    match till.charge(&form.order).await {
        Ok((status, intent)) if status.is_success() => Json(intent).into_response(),
        Ok((_, refusal)) => problem(refusal["error"]["message"].as_str().unwrap_or("refused")),
        Err(error) => problem(&format!("{error:#}")),
    }
}

fn problem(what: &str) -> Response {
    let body = Json(serde_json::json!({ "error": what }));
    (StatusCode::PAYMENT_REQUIRED, body).into_response()
}

impl Till {
    async fn charge(&self, order: &str) -> anyhow::Result<(StatusCode, serde_json::Value)> {
        let fields = [
            ("amount", self.price_minor.to_string()),
            ("currency", "usd".to_owned()),
            ("metadata[order]", order.to_owned()),
            ("payment_method", "pm_card_visa".to_owned()),
            ("confirm", "true".to_owned()),
        ];
        let form = fields.map(|(name, value)| {
            let [name, value] = [name, value.as_str()]
                .map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
            format!("{name}={value}")
        });
        let request = Request::post("/v1/payment_intents")
            .header(header::HOST, self.gateway.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.api_key))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("idempotency-key", format!("pay-{order}"))
            .body(Full::new(Bytes::from(form.join("&"))))?;
        let stream = tokio::net::TcpStream::connect(self.gateway).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

async fn page(content: String) -> Html<String> {
    Html(FRAME.replace("<!-- content -->", &content))
}

async fn event(State(shop): State<Arc<Shop>>, headers: HeaderMap, body: Bytes) -> Response {
    if is_signed(&shop.key, &headers, &body) {
        shop.events.fetch_add(1, Ordering::Relaxed);
        StatusCode::NO_CONTENT.into_response()
    } else {
        shop.forged.fetch_add(1, Ordering::Relaxed);
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Checks `Penstock-Signature: t=SECONDS,v1=HEX` as a shop has to: the MAC covers the time, a dot and the body.
fn is_signed(key: &hmac::Key, headers: &HeaderMap, body: &[u8]) -> bool {
    let Some(signature) = headers
        .get("penstock-signature")
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let field = |name: &str| {
        signature
            .split(',')
            .find_map(|part| part.trim().strip_prefix(name))
    };
    let (Some(time), Some(mac)) = (field("t="), field("v1=").and_then(unhex)) else {
        return false;
    };
    let mut signed = format!("{time}.").into_bytes();
    signed.extend_from_slice(body);
    hmac::verify(key, &signed, &mac).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(key: &hmac::Key, body: &[u8]) -> HeaderMap {
        let mac = hmac::sign(key, &[b"17.", body].concat());
        let hex: String = mac
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut headers = HeaderMap::new();
        headers.insert(
            "penstock-signature",
            format!("t=17,v1={hex}").parse().expect("ASCII"),
        );
        headers
    }

    #[test]
    fn only_the_body_that_was_signed_is_accepted() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let headers = signed(&key, b"paid");
        assert!(is_signed(&key, &headers, b"paid"));
        assert!(!is_signed(&key, &headers, b"unpaid"));
        assert!(!is_signed(&key, &HeaderMap::new(), b"paid"));
        assert!(!is_signed(
            &hmac::Key::new(hmac::HMAC_SHA256, b"other"),
            &headers,
            b"paid"
        ));
    }
}
