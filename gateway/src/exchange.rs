//! One request on its way through the stack, and the client connection it came on.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    task::Waker,
};

use http::{
    HeaderValue, Method, Version,
    header::{CONTENT_LENGTH, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    core::RouteEntry,
    metrics::Protocol,
    stack::observed::Sending,
    target::{is_authority, is_same_authority, read_path},
};

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
    /// The methods that routes of this host and path have, if none has the request's.
    pub allowed: Option<String>,
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
    /// Whether the last request has a body, which the client may still be sending when it is answered.
    pub uploads: Arc<AtomicBool>,
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
    has_bad_host(head) || has_bad_target(head) || has_bad_length(head)
}

fn has_bad_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return true;
    }
    // RFC 9112 3.2: a 1.1 request carries exactly one Host, in absolute form too.
    let authority = head.uri.authority();
    let has_name = match head.version {
        Version::HTTP_11 => host.is_some(),
        Version::HTTP_2 => host.is_some() || authority.is_some(),
        _ => true,
    };
    if !has_name || host.is_some_and(|host| !is_authority(host.as_bytes())) {
        return true;
    }
    let Some(authority) = authority else {
        return false;
    };
    if authority.as_str().contains('@') || !is_authority(authority.as_str().as_bytes()) {
        return true;
    }
    // Two names for one request: the route would go by one and the shop by the other. HTTP/1.1 says that the target's counts and
    // Host is to be ignored (RFC 9112 3.2.2); HTTP/2 that such a request is malformed (RFC 9113 8.3.1).
    let scheme = head.uri.scheme_str().unwrap_or_default();
    head.version == Version::HTTP_2
        && host.is_some_and(|host| {
            let host = std::str::from_utf8(host.as_bytes()).unwrap_or_default();
            !is_same_authority(authority.as_str(), host, scheme)
        })
}

fn has_bad_target(head: &Parts) -> bool {
    let is_http = |scheme: &str| {
        ["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    };
    if head.uri.scheme_str().is_some_and(|scheme| !is_http(scheme)) {
        return true;
    }
    let path = head.uri.path();
    // `a:80` alone is what CONNECT asks for (RFC 9112 3.2.3).
    let has_bare_authority = head.uri.authority().is_some() && head.uri.scheme().is_none();
    if has_bare_authority && head.version != Version::HTTP_2 && head.method != Method::CONNECT {
        return true;
    }
    // `*` asks about the server itself.
    let is_asterisk = path == "*" && head.method == Method::OPTIONS;
    let is_authority_form = head.method == Method::CONNECT;
    let has_form = path.starts_with('/') || path.is_empty() && head.uri.authority().is_some();
    if !has_form && !is_asterisk && !is_authority_form {
        return true;
    }
    read_path(path).is_none()
}

/// Several lengths, or one that is no number. hyper takes equal ones for one; the next reader may not.
fn has_bad_length(head: &Parts) -> bool {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return false;
    };
    let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    !is_number || lengths.next().is_some()
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
        assert!(!is_malformed(&head(
            "https://a:443/",
            Version::HTTP_2,
            &["a"]
        )));
        assert!(is_malformed(&head("https://a/", Version::HTTP_2, &["b"])));
        // HTTP/1.1: the target counts, and Host has to be there all the same.
        assert!(!is_malformed(&head("http://a/", Version::HTTP_11, &["b"])));
        assert!(is_malformed(&head("http://a/", Version::HTTP_11, &[])));
        for host in ["a:http", "a:80:80", "[::1", "a[b]c"] {
            assert!(
                is_malformed(&head("/", Version::HTTP_11, &[host])),
                "{host}"
            );
        }
        assert!(is_malformed(&head("ftp://a/", Version::HTTP_11, &["a"])));
        assert!(is_malformed(&head("*", Version::HTTP_11, &["a"])));
        assert!(is_malformed(&head("checkout", Version::HTTP_11, &["a"])));
        assert!(is_malformed(&head("/", Version::HTTP_11, &["a/b"])));
        assert!(is_malformed(&head("https://u@a/", Version::HTTP_2, &[])));
    }

    #[test]
    fn a_request_has_one_length_at_most() {
        let with = |lengths: &[&str]| {
            let mut head = head("/", Version::HTTP_11, &["a"]);
            for length in lengths {
                head.headers.append(CONTENT_LENGTH, length.parse().unwrap());
            }
            is_malformed(&head)
        };
        assert!(!with(&[]) && !with(&["5"]));
        assert!(with(&["5", "5"]) && with(&["5, 5"]) && with(&["+5"]) && with(&[""]));
    }
}
