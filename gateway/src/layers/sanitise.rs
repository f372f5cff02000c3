//! The layer that makes a request safe to reason about: one reading of it, and no claims by those who may not make them.

use std::{future::ready, rc::Rc};

use futures_util::future::Either;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, MAX_FORWARDS},
};

use super::Handle;
use crate::{
    config,
    exchange::{Body, Exchange},
    http::{
        Problem,
        headers::{Via, has_unknown_coding, is_proxy_claim, is_proxy_credential, remove_where},
        malformed::is_malformed,
    },
    snapshot::Snapshot,
};

/// Refuses malformed requests; removes headers that only trusted proxies may set.
#[derive(Debug)]
pub(super) struct Sanitise<S> {
    inner: S,
    server: Rc<Snapshot<config::Server>>,
    via: Rc<Via>,
}

impl<S> Sanitise<S> {
    /// By the rules of this table.
    pub(super) fn new(inner: S, server: Rc<Snapshot<config::Server>>, via: Rc<Via>) -> Self {
        Self { inner, server, via }
    }

    /// Refuses the request, or makes it safe.
    fn refuse(&self, exchange: &mut Exchange) -> Option<Response<Body>> {
        if is_malformed(&exchange.head) {
            return Some(Problem::BadRequest.response());
        }
        let server = self.server.read();
        let head = &mut exchange.head;
        // CONNECT asks for a forward proxy; TRACE would show a script the cookies it may not read.
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Some(not_allowed(METHODS));
        }
        // HTTP/1.1 is bounded by its parser; HTTP/2 by the size of the list only.
        if head.headers.len() > server.max_headers {
            return Some(Problem::TooManyHeaders.response());
        }
        if has_unknown_coding(&head.headers) {
            return Some(Problem::TransferCoding.response());
        }
        if self.via.is_in(&head.headers) {
            return Some(Problem::Loop.response());
        }
        if head.method == Method::OPTIONS && head.headers.contains_key(MAX_FORWARDS) {
            match forwards_left(&head.headers) {
                Some(0) => return Some(options()),
                Some(left) => {
                    let left = HeaderValue::from(left - 1);
                    head.headers.insert(MAX_FORWARDS, left);
                }
                None => {}
            }
        }
        let (client, trusted) = (&exchange.client, &server.trusted_headers);
        remove_where(&mut head.headers, |name| {
            is_forbidden(name, client.is_trusted, client.may_identify, trusted)
        });
        None
    }
}

impl<S: Handle> Handle for Sanitise<S> {
    fn handle(&self, mut exchange: Exchange) -> impl Future<Output = Response<Body>> {
        match self.refuse(&mut exchange) {
            Some(refusal) => Either::Left(ready(refusal)),
            None => Either::Right(self.inner.handle(exchange)),
        }
    }
}

/// What is allowed in general, where no route says more.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A refusal that names what is allowed (RFC 9110 15.5.6).
pub(super) fn not_allowed(methods: &str) -> Response<Body> {
    let mut response = Problem::MethodNotAllowed.response();
    if let Ok(methods) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// How many hops an OPTIONS may still take (RFC 9110 7.6.2). What cannot be read is ignored.
fn forwards_left(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(MAX_FORWARDS)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The answer to an OPTIONS that ends here.
fn options() -> Response<Body> {
    let mut response = Response::new(Body::EMPTY);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// What a peer may not send on: where a request came from, unless it is a trusted proxy; who somebody is, unless it logs people in;
/// what is meant for any proxy.
///
/// CGI, WSGI and PHP turn `-` into `_`, so a shop reads `x_buyer_id` and `x-buyer-id` as one header, and leaving the other spelling
/// through would leave the claim through. Names with an underscore come from trusted proxies only (nginx drops them too), and
/// spellings of a trusted header from those who may set that header.
fn is_forbidden(
    name: &HeaderName,
    is_trusted: bool,
    may_identify: bool,
    trusted: &[HeaderName],
) -> bool {
    let text = name.as_str();
    let has_underscore = text.contains('_');
    if is_proxy_credential(name) || text == "proxy" {
        return true;
    }
    if !is_trusted && (has_underscore || is_proxy_claim(name)) {
        return true;
    }
    let is_same = |identity: &HeaderName| {
        let identity = identity.as_str().bytes();
        text.len() == identity.len()
            && text
                .bytes()
                .zip(identity)
                .all(|(byte, other)| byte == other || (byte == b'_' && other == b'-'))
    };
    !may_identify && trusted.iter().any(is_same)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::layers::testing::Echo;

    async fn through(request: Request<&'static str>) -> Response<Body> {
        let server = Rc::new(Snapshot::new(config::Server::for_test()));
        let layer = Sanitise::new(Echo, server, Rc::new(Via::new(7)));
        layer.handle(Exchange::for_test(request)).await
    }

    fn get() -> http::request::Builder {
        Request::get("/").header("host", "shop.example")
    }

    #[tokio::test]
    async fn a_strangers_claims_do_not_go_on() {
        let request = get()
            .header("x-forwarded-for", "1.2.3.4")
            .header("accept", "*/*");
        let answer = through(request.body("").unwrap()).await;
        assert_eq!(answer.headers()["seen"], "accept host");
    }

    #[tokio::test]
    async fn what_ends_here_reaches_no_inner_layer() {
        let refused = async |request: http::request::Builder| {
            let answer = through(request.body("").unwrap()).await;
            assert!(!answer.headers().contains_key("seen"));
            answer.status().as_u16()
        };
        assert_eq!(refused(Request::get("/")).await, 400);
        assert_eq!(refused(get().method("TRACE")).await, 405);
        assert_eq!(
            refused(get().header("transfer-encoding", "gzip, chunked")).await,
            501
        );
        let ends = get().method("OPTIONS").header("max-forwards", "0");
        assert_eq!(refused(ends).await, 204);
        let many = (0..200).fold(get(), |request, at| request.header(format!("x-{at}"), "1"));
        assert_eq!(refused(many).await, 431);
    }

    /// Which of these names go on from a peer that is a trusted proxy, that may identify, both or neither.
    fn passed<'n>(names: &[&'n str], is_trusted: bool, may_identify: bool) -> Vec<&'n str> {
        let trusted = [HeaderName::from_static("x-buyer-id")];
        let is_passed = |name: &&str| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            !is_forbidden(&name, is_trusted, may_identify, &trusted)
        };
        names.iter().copied().filter(is_passed).collect()
    }

    #[test]
    fn claims_credentials_and_underscores_are_forbidden_to_strangers() {
        let claims = [
            "x-forwarded-for",
            "x-forwarded-ssl",
            "x-forwarded-scheme",
            "x-forwarded-prefix",
            "x-forwarded-server",
            "x-real-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "x-original-url",
            "forwarded",
            "x_forwarded-for",
            "any_thing",
        ];
        let identities = ["x-buyer-id", "x_buyer_id", "x-buyer_id"];
        let credentials = ["proxy-authorization", "proxy"];
        for (is_trusted, may_identify) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let all = |names| passed(names, is_trusted, may_identify);
            assert_eq!(all(&claims).is_empty(), !is_trusted);
            assert!(all(&credentials).is_empty());
            let ordinary = ["host", "accept", "x-forwarded", "x-buyer", "authorization"];
            assert_eq!(all(&ordinary), ordinary);
        }
        assert!(passed(&identities, false, false).is_empty());
        // What broke: a proxy on the same machine passed on what its visitor claimed.
        assert!(passed(&identities, true, false).is_empty());
        assert_eq!(passed(&identities, false, true), ["x-buyer-id"]);
        assert_eq!(passed(&identities, true, true), identities);
    }
}
