//! One request on its way through the stack, and the client connection it came on.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::Waker,
};

use http::{HeaderValue, Version, header::HOST, request::Parts};
use hyper::body::Incoming;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{core::RouteEntry, metrics::Protocol, stack::observed::Sending};

/// One request, as the layers hand it on.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// Method, target and header.
    pub head: Parts,
    /// The body, unread.
    pub body: Incoming,
    /// Where it came in.
    pub client: &'a Rc<Client>,
    /// Whose address it carries: the peer's, or the one a trusted proxy vouches for.
    pub client_ip: IpAddr,
    /// Where it goes; `None` if no route matches.
    pub route: Option<&'a RouteEntry>,
    /// Whether a route would match but for the method.
    pub has_other_method: bool,
    /// When its header was complete.
    pub started: Instant,
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    /// The other end.
    pub peer: SocketAddr,
    /// Its address as a header's value, made once.
    pub peer_value: HeaderValue,
    /// Whether its `X-Forwarded-*` are believed.
    pub is_trusted: bool,
    /// Whether it may say who somebody is (`server.trusted_headers`).
    pub may_identify: bool,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// Its HTTP version.
    pub protocol: Protocol,
    /// Requests not finished yet.
    pub in_flight: Cell<u32>,
    /// When the last request ended, or the connection began.
    pub idle_since: Cell<Instant>,
    /// Whether a request has come yet; until then the header's clock runs, not the idle one.
    pub has_served: Cell<bool>,
    /// Responses that are being sent piece by piece: at most one, or one per stream of HTTP/2.
    pub sending: RefCell<Vec<Rc<Sending>>>,
    /// Its place among `server.max_connections`; a tunnel takes it along. `None` for what was accepted while draining.
    pub room: RefCell<Option<OwnedSemaphorePermit>>,
    /// What the connection's task should do next.
    pub wish: Cell<Wish>,
    /// The connection's task.
    pub waker: RefCell<Option<Waker>>,
}

/// What a connection's task is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    Serve,
    /// End after the requests in flight: `Connection: close`, or GOAWAY.
    Drain,
    /// End if no request is in flight, else go on: it was idle for too long, but one may just have arrived.
    CloseIdle,
    /// End now.
    Abort,
}

impl Client {
    /// Asks the connection's task for something, and wakes it.
    pub fn ask(&self, wish: Wish) {
        self.wish.set(wish);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.is_tls { "https" } else { "http" })
    }
}

/// The host a request asks for, with its port: the target's authority (HTTP/2, absolute form), else the `Host` header.
pub fn host_of(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST)?.to_str().ok(),
    }
}

/// Whether the request is too malformed to be understood the same way by everybody who reads it. hyper has already refused
/// broken framing; these are the rules it leaves to its user.
pub fn is_malformed(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return true;
    }
    // RFC 9112 3.2: a 1.1 request carries exactly one Host.
    let needs_host = head.version == Version::HTTP_11 || head.version == Version::HTTP_2;
    if needs_host && host.is_none() && head.uri.authority().is_none() {
        return true;
    }
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return true;
    }
    // Two names for one request: the route would go by one and the shop by the other.
    if let (Some(authority), Some(host)) = (head.uri.authority(), host)
        && !authority
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host.as_bytes())
    {
        return true;
    }
    if head
        .uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return true;
    }
    has_dot_segments(head.uri.path())
}

/// No spaces, slashes or user names.
fn is_host(host: &[u8]) -> bool {
    host.iter()
        .all(|c| c.is_ascii_alphanumeric() || b"-._:[]~%!$&'()*+,;=".contains(c))
}

/// `/a/../b` and its encodings: the route is chosen by the text and the shop resolves it, so they would see two paths. No
/// client sends one by accident: browsers and HTTP libraries resolve them first.
fn has_dot_segments(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_suspect = bytes.windows(2).any(|pair| pair == b"/." || pair == b"/%");
    is_suspect && path.split('/').any(is_dot_segment)
}

fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while !rest.is_empty() {
        rest = if let Some(after) = rest.strip_prefix('.') {
            after
        } else if let Some(after) = rest
            .strip_prefix("%2e")
            .or_else(|| rest.strip_prefix("%2E"))
        {
            after
        } else {
            return false;
        };
        dots += 1;
    }
    dots == 1 || dots == 2
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, version: Version, hosts: &[&str]) -> Parts {
        let mut request = Request::get(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert!(!is_malformed(&head("/", Version::HTTP_11, &["a"])));
        assert!(is_malformed(&head("/", Version::HTTP_11, &[])));
        assert!(is_malformed(&head("/", Version::HTTP_11, &["a", "b"])));
        assert!(!is_malformed(&head("/", Version::HTTP_10, &[])));
        assert!(!is_malformed(&head(
            "https://a:8443/",
            Version::HTTP_2,
            &[]
        )));
        assert!(!is_malformed(&head(
            "https://a:8443/",
            Version::HTTP_2,
            &["A:8443"]
        )));
        assert!(is_malformed(&head("https://a/", Version::HTTP_2, &["b"])));
        assert!(is_malformed(&head("/", Version::HTTP_11, &["a/b"])));
        assert!(is_malformed(&head("https://u@a/", Version::HTTP_2, &[])));
    }

    #[test]
    fn paths_that_could_be_read_twice_are_malformed() {
        for bad in ["/a/../b", "/..", "/a/.", "/%2e%2E/x", "/a/.%2e"] {
            assert!(has_dot_segments(bad), "{bad}");
        }
        for good in ["/", "/.well-known/x", "/a/...", "/a.b/..c", "/%2f", "/a%2e"] {
            assert!(!has_dot_segments(good), "{good}");
        }
    }
}
