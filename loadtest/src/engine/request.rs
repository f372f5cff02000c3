//! Requests from prebuilt parts: what is the same for all is made once, what differs is written into a shared arena.

use std::cell::RefCell;
use std::fmt::Write;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;

use crate::plan::{Identities, Job, Kind};
use crate::scenario::{Protocol, Scenario};

/// Body of everything we send: known whole before it goes out.
pub(super) type Body = Full<Bytes>;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
/// Header values of a few hundred requests share one allocation.
const ARENA: usize = 16 * 1024;
/// More than any value we write: request id, buyer, address.
const LONGEST_VALUE: usize = 128;

/// The parts of every request of a scenario.
pub(super) struct Parts {
    ids: Identities,
    /// `Host`, for HTTP/1.1; HTTP/2 has it in the URI.
    host: Option<HeaderValue>,
    /// `scheme://authority` for HTTP/2, empty for HTTP/1.1.
    origin: String,
    pages: Vec<Uri>,
    buy: Uri,
    buy_bodies: Vec<Bytes>,
    buy_cart: Uri,
    /// By the first sku of the cart.
    cart_bodies: Vec<Bytes>,
    skus: Vec<String>,
    buyer_header: HeaderName,
    address_header: Option<HeaderName>,
    pay: Uri,
    authorization: Option<HeaderValue>,
    /// The form of a payment up to the order id: one for cards that pay, one for cards that are declined.
    pay_forms: [String; 2],
    arena: RefCell<BytesMut>,
}

impl Parts {
    pub(super) fn new(s: &Scenario) -> anyhow::Result<Parts> {
        let target: Uri = s.target.url.parse().context("target url")?;
        let authority = target.authority().context("target url has no host")?;
        let (origin, host) = match s.target.protocol {
            Protocol::H1 => (
                String::new(),
                Some(HeaderValue::from_str(authority.as_str())?),
            ),
            Protocol::H2 => {
                let scheme = target.scheme_str().unwrap_or("http");
                (format!("{scheme}://{authority}"), None)
            }
        };
        let uri = |path: &str| -> anyhow::Result<Uri> {
            format!("{origin}{path}")
                .parse()
                .with_context(|| format!("path {path:?}"))
        };
        let sale = s.sale.as_ref();
        let sale_id = sale.map_or("none", |sale| sale.id.as_str());
        let skus = sale.map_or_else(Vec::new, |sale| sale.skus.clone());
        let quantity = sale.map_or(1, |sale| sale.quantity);
        let cart_skus = sale.map_or(0, |sale| sale.cart_skus);
        let pay = s.pay.as_ref();
        let form = |card: &str| {
            pay.map_or_else(String::new, |pay| {
                format!(
                    "amount={}&currency={}&payment_method={card}&confirm=true&metadata[order]=",
                    pay.amount_minor * u64::from(quantity),
                    pay.currency
                )
            })
        };
        Ok(Parts {
            ids: Identities::new(s),
            pages: s
                .page_views
                .paths
                .iter()
                .map(|path| uri(path))
                .collect::<anyhow::Result<_>>()?,
            buy: uri(&format!("/v1/sales/{sale_id}/orders"))?,
            buy_bodies: skus.iter().map(|sku| order_body(sku, quantity)).collect(),
            buy_cart: uri(&format!("/v1/sales/{sale_id}/carts"))?,
            cart_bodies: (0..skus.len())
                .map(|first| cart_body(&skus, first..first + cart_skus, quantity))
                .collect(),
            skus,
            buyer_header: HeaderName::from_bytes(s.buyers.header.as_bytes())?,
            address_header: s
                .buyers
                .address_header
                .as_ref()
                .map(|name| HeaderName::from_bytes(name.as_bytes()))
                .transpose()?,
            pay: uri("/v1/payment_intents")?,
            authorization: pay
                .map(|pay| {
                    let mut value = HeaderValue::from_str(&format!("Bearer {}", pay.api_key))?;
                    value.set_sensitive(true);
                    anyhow::Ok(value)
                })
                .transpose()?,
            pay_forms: [form("pm_card_visa"), form("pm_card_chargeDeclined")],
            arena: RefCell::new(BytesMut::new()),
            host,
            origin,
        })
    }

    /// The request of a job. `order` is the order a payment is for.
    pub(super) fn request(&self, job: &Job, order: Option<&str>) -> Request<Body> {
        let mut headers = HeaderMap::with_capacity(6);
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        let (method, uri, body) = match job.kind {
            Kind::Page => (
                Method::GET,
                self.pages[job.number as usize].clone(),
                Bytes::new(),
            ),
            Kind::Buy | Kind::BuyAgain => {
                headers.insert(CONTENT_TYPE, JSON);
                headers.insert(IDEMPOTENCY_KEY, self.request_id(job.number, ""));
                self.insert_buyer(&mut headers, job.number);
                let sku = self.ids.sku_of(job.number);
                match self.ids.is_cart(job.number) {
                    true => (
                        Method::POST,
                        self.buy_cart.clone(),
                        self.cart_bodies[sku].clone(),
                    ),
                    false => (Method::POST, self.buy.clone(), self.buy_bodies[sku].clone()),
                }
            }
            Kind::Poll => {
                self.insert_buyer(&mut headers, job.number);
                (Method::GET, self.poll_uri(job.number), Bytes::new())
            }
            Kind::Pay => {
                headers.insert(CONTENT_TYPE, FORM);
                headers.insert(IDEMPOTENCY_KEY, self.request_id(job.number, "-pay"));
                if let Some(authorization) = &self.authorization {
                    headers.insert(AUTHORIZATION, authorization.clone());
                }
                let form = &self.pay_forms[usize::from(self.ids.declines(job.number))];
                let body = format!("{form}{}", escape(order.unwrap_or_default()));
                (Method::POST, self.pay.clone(), body.into())
            }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request
    }

    /// The skus of a job that is about a cart, in the order of its lines.
    pub(super) fn cart_of(&self, job: &Job) -> Option<Vec<&str>> {
        let of_purchase = matches!(job.kind, Kind::Buy | Kind::BuyAgain | Kind::Poll);
        (of_purchase && self.ids.is_cart(job.number)).then(|| {
            let skus = self.ids.skus_of(job.number);
            skus.map(|sku| self.skus[sku].as_str()).collect()
        })
    }

    fn insert_buyer(&self, headers: &mut HeaderMap, purchase: u32) {
        let buyer = self.ids.buyer_of(purchase);
        let name = self.ids.buyer_name(buyer);
        headers.insert(
            self.buyer_header.clone(),
            self.value(|out| write!(out, "buyer-{name:016x}")),
        );
        if let Some(header) = &self.address_header {
            let [a, b, c, d] = self.ids.address(buyer);
            headers.insert(
                header.clone(),
                self.value(|out| write!(out, "{a}.{b}.{c}.{d}")),
            );
        }
    }

    fn request_id(&self, purchase: u32, suffix: &str) -> HeaderValue {
        let run = self.ids.run_name();
        self.value(|out| write!(out, "lt-{run:016x}-{purchase:08x}{suffix}"))
    }

    fn poll_uri(&self, purchase: u32) -> Uri {
        let sku = &self.skus[self.ids.sku_of(purchase)];
        let id = self.ids.request_id(purchase);
        // Sale, sku and request id were checked to need no escaping.
        let path = match self.ids.is_cart(purchase) {
            true => format!("{}?request_id={id}", self.buy_cart.path()),
            false => format!("{}?sku={sku}&request_id={id}", self.buy.path()),
        };
        format!("{}{path}", self.origin)
            .parse()
            .expect("made of checked parts")
    }

    fn value(&self, write: impl FnOnce(&mut BytesMut) -> std::fmt::Result) -> HeaderValue {
        let mut arena = self.arena.borrow_mut();
        if arena.capacity() < LONGEST_VALUE {
            *arena = BytesMut::with_capacity(ARENA);
        }
        write(&mut arena).expect("writing to memory cannot fail");
        HeaderValue::from_maybe_shared(arena.split().freeze())
            .expect("letters, digits, dots and dashes only")
    }
}

/// Percent-encodes what a form value must not hold. Order ids hold none of it, if they are what they should be.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn order_body(sku: &str, quantity: u32) -> Bytes {
    let body = serde_json::json!({ "sku": sku, "quantity": quantity });
    body.to_string().into()
}

/// A cart of the skus at these places, counted around the list.
fn cart_body(skus: &[String], places: std::ops::Range<usize>, quantity: u32) -> Bytes {
    let line = |at| serde_json::json!({ "sku": skus[at % skus.len()], "quantity": quantity });
    let lines: Vec<_> = places.map(line).collect();
    serde_json::json!({ "lines": lines }).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_values_are_escaped() {
        assert_eq!(escape("ord_ab-1.2"), "ord_ab-1.2");
        assert_eq!(escape("a&b=c é"), "a%26b%3Dc%20%C3%A9");
    }
}
