//! The layer that makes a request safe to reason about: one reading of it, and no claims by those who may not make them.

use std::{future::ready, net::IpAddr, rc::Rc};

use futures_util::future::Either;
use http::{HeaderMap, HeaderName, Method, Response};
use tower_layer::Layer;

use super::Handle;
use crate::{
    body::Body,
    config::values::Cidr,
    core::Core,
    exchange::{Client, Exchange, is_malformed},
    headers::{X_FORWARDED_FOR, is_proxy_claim, is_proxy_credential, remove_where},
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
        // CONNECT asks for a forward proxy; TRACE would show a script the cookies it may not read.
        if matches!(exchange.head.method, Method::CONNECT | Method::TRACE) {
            return Either::Left(ready(Problem::MethodNotAllowed.response()));
        }
        let headers = &mut exchange.head.headers;
        if exchange.client.is_trusted {
            remove_where(headers, is_proxy_credential);
        } else {
            let trusted = &self.core.shared.config.server.trusted_headers;
            remove_where(headers, |name| is_forbidden(name, trusted));
        }
        Either::Right(self.inner.handle(exchange))
    }
}

/// What a peer that is no trusted proxy may not send on.
///
/// Every name with an underscore is among it: CGI, WSGI and PHP turn `-` into `_`, so a shop reads `x_buyer_id` and `x-buyer-id`
/// as one header, and leaving the other spelling through would leave the claim through. nginx drops such names too.
fn is_forbidden(name: &HeaderName, trusted: &[HeaderName]) -> bool {
    is_proxy_claim(name)
        || is_proxy_credential(name)
        || name.as_str().contains('_')
        || trusted.contains(name)
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
        for hop in line.to_str().unwrap_or_default().rsplit(',') {
            // A hop that cannot be read hides everything before it.
            let Some(ip) = address(hop.trim()) else {
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

    use http::HeaderValue;
    use tokio::time::Instant;

    use super::*;
    use crate::{exchange::Wish, metrics::Protocol};

    fn found(peer: &str, lines: &[&str]) -> String {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "2001:db8::/32"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let peer: IpAddr = peer.parse().unwrap();
        let client = Client {
            peer: (peer, 1).into(),
            peer_value: HeaderValue::from_static("x"),
            is_trusted: trusted.iter().any(|network| network.contains(peer)),
            is_tls: false,
            protocol: Protocol::H1,
            in_flight: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            has_served: Cell::new(false),
            sending: RefCell::default(),
            room: RefCell::default(),
            wish: Cell::new(Wish::Serve),
            waker: RefCell::default(),
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        client_ip(&headers, &client, &trusted).to_string()
    }

    #[test]
    fn claims_credentials_and_underscores_are_forbidden_to_strangers() {
        let trusted = [HeaderName::from_static("x-buyer-id")];
        for name in [
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
            "proxy-authorization",
            "x-buyer-id",
            "x_buyer_id",
            "x_forwarded-for",
            "any_thing",
        ] {
            assert!(
                is_forbidden(&HeaderName::from_static(name), &trusted),
                "{name}"
            );
        }
        for name in ["host", "accept", "x-forwarded", "x-buyer", "authorization"] {
            assert!(
                !is_forbidden(&HeaderName::from_static(name), &trusted),
                "{name}"
            );
        }
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
