//! The layer that makes a request safe to reason about: one reading of it, and no claims by those who may not make them.

use std::{future::ready, net::IpAddr, rc::Rc};

use futures_util::future::Either;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, MAX_FORWARDS},
};
use tower_layer::Layer;

use super::Handle;
use crate::{
    body::Body,
    config::values::Cidr,
    core::Core,
    exchange::{Client, Exchange, is_malformed},
    headers::{
        X_FORWARDED_FOR, has_unknown_coding, is_proxy_claim, is_proxy_credential, remove_where,
    },
    problem::Problem,
};

/// Makes [`Sanitise`].
#[derive(Clone, Debug)]
pub struct SanitiseLayer {
    core: Rc<Core>,
}

/// Refuses malformed requests; removes headers that only trusted proxies may set.
#[derive(Debug)]
pub struct Sanitise<S> {
    inner: S,
    core: Rc<Core>,
}

impl SanitiseLayer {
    /// By the rules of this core's configuration.
    pub fn new(core: &Rc<Core>) -> Self {
        Self {
            core: Rc::clone(core),
        }
    }
}

impl<S> Layer<S> for SanitiseLayer {
    type Service = Sanitise<S>;

    fn layer(&self, inner: S) -> Sanitise<S> {
        Sanitise {
            inner,
            core: Rc::clone(&self.core),
        }
    }
}

impl<S: Handle> Handle for Sanitise<S> {
    fn handle<'a>(
        &'a self,
        mut exchange: Exchange<'a>,
    ) -> impl Future<Output = Response<Body>> + 'a {
        if is_malformed(&exchange.head) {
            return Either::Left(ready(Problem::BadRequest.response()));
        }
        let shared = &self.core.shared;
        let head = &mut exchange.head;
        // CONNECT asks for a forward proxy; TRACE would show a script the cookies it may not read.
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Either::Left(ready(not_allowed(METHODS)));
        }
        // HTTP/1.1 is bounded by its parser; HTTP/2 by the size of the list only.
        if head.headers.len() > shared.config.server.max_headers {
            return Either::Left(ready(Problem::TooManyHeaders.response()));
        }
        if has_unknown_coding(&head.headers) {
            return Either::Left(ready(Problem::TransferCoding.response()));
        }
        if shared.via.is_in(&head.headers) {
            return Either::Left(ready(Problem::Loop.response()));
        }
        if head.method == Method::OPTIONS && head.headers.contains_key(MAX_FORWARDS) {
            match forwards_left(&head.headers) {
                Some(0) => return Either::Left(ready(options())),
                Some(left) => {
                    head.headers
                        .insert(MAX_FORWARDS, HeaderValue::from(left - 1));
                }
                None => {}
            }
        }
        let headers = &mut head.headers;
        let trusted = &shared.config.server.trusted_headers;
        let client = exchange.client;
        remove_where(headers, |name| {
            is_forbidden(name, client.is_trusted, client.may_identify, trusted)
        });
        Either::Right(self.inner.handle(exchange))
    }
}

/// What is allowed in general, where no route says more.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A refusal that names what is allowed (RFC 9110 15.5.6).
pub fn not_allowed(methods: &str) -> Response<Body> {
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
/// what is meant for a proxy, whoever it is.
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

/// Whose address a request carries: the last hop of `X-Forwarded-For` that is not itself a trusted proxy, if the peer is one;
/// else the peer's own. From the right, because what stands to the left was written by whoever is to the left.
pub fn client_ip(headers: &HeaderMap, client: &Client, trusted: &[Cidr]) -> IpAddr {
    let peer = client.peer.ip();
    if !client.is_trusted {
        return peer;
    }
    let mut found = peer;
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        // Hop by hop in bytes: one that is no text hides what is before it, not what is behind it.
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            let Some(ip) = std::str::from_utf8(hop)
                .ok()
                .and_then(|hop| address(hop.trim()))
            else {
                return found;
            };
            found = ip;
            if !trusted.iter().any(|network| network.contains(ip)) {
                return found;
            }
        }
    }
    found
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`.
fn address(hop: &str) -> Option<IpAddr> {
    hop.parse()
        .ok()
        .or_else(|| {
            hop.parse::<std::net::SocketAddr>()
                .ok()
                .map(|socket| socket.ip())
        })
        .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;
    use crate::{exchange::Wish, metrics::Protocol};

    fn found_in(headers: &HeaderMap, peer: &str) -> String {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "2001:db8::/32"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let peer: IpAddr = peer.parse().unwrap();
        let client = Client {
            peer: (peer, 1).into(),
            peer_value: HeaderValue::from_static("x"),
            is_trusted: trusted.iter().any(|network| network.contains(peer)),
            may_identify: false,
            is_tls: false,
            protocol: Protocol::H1,
            in_flight: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            has_served: Cell::new(false),
            sending: RefCell::default(),
            room: RefCell::default(),
            uploads: Default::default(),
            wish: Cell::new(Wish::Serve),
            waker: RefCell::default(),
        };
        client_ip(headers, &client, &trusted).to_string()
    }

    fn found(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                X_FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        found_in(&headers, peer)
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

    #[test]
    fn a_byte_that_is_no_text_hides_no_hop_behind_it() {
        // 0xE9 alone, and the two bytes of an é.
        let mut headers = HeaderMap::new();
        headers.append(
            X_FORWARDED_FOR,
            HeaderValue::from_bytes(b"\xE9, 203.0.113.32").unwrap(),
        );
        assert_eq!(found_in(&headers, "10.0.0.1"), "203.0.113.32");
        assert_eq!(found("10.0.0.1", &["é, 203.0.113.32"]), "203.0.113.32");
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(found("192.0.2.1", &["1.2.3.4"]), "192.0.2.1");
    }

    #[test]
    fn the_last_untrusted_hop_is_the_client() {
        assert_eq!(
            found("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"]),
            "1.2.3.4"
        );
        assert_eq!(found("10.0.0.1", &["6.6.6.6", "1.2.3.4:99"]), "1.2.3.4");
        assert_eq!(found("2001:db8::1", &["[2001:db9::7]:80"]), "2001:db9::7");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_hop_that_cannot_be_read_hides_what_is_before_it() {
        assert_eq!(
            found("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"]),
            "10.0.0.2"
        );
    }
}
