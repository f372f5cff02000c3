//! Header rules of a proxy (RFC 9110 7.6.1): what belongs to one connection stays on it. Pure.
//!
//! Used by `forward.rs` in both directions and by `stack/sanitise.rs`.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

/// Who was before us.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme the client used.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host the client asked.
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Removes the headers whose names fit, in one pass: nearly every message has none of them, so looking each of them up would
/// cost a hash per name and find nothing.
pub(crate) fn remove_where(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    // Allocates with the first hit only. Bounded by `server.max_headers`.
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_unwanted(name))
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Removes the headers that belong to one connection, including those that `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            // The usual tokens, whose headers go anyway or are none.
            .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"))
            .filter(|token| !token.eq_ignore_ascii_case(b"close"))
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            // What is meant for every recipient belongs to the message, whatever `Connection` says (RFC 9110 7.6.1): a visitor's list
            // passes through other proxies, and would take off what they have added.
            .filter(|name| !is_end_to_end(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_where(headers, is_hop_by_hop);
}

/// Whether a header is meant for the server at the end, or was added by a proxy for it.
fn is_end_to_end(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, AUTHORIZATION, COOKIE, VIA].contains(name) || is_proxy_claim(name)
}

/// Whether a header belongs to one connection by its name alone.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            // Goes with `Upgrade: h2c`, which nobody here follows.
            | "http2-settings"
    )
}

/// Whether a header says what only a proxy in front can know: whose request it is and how it came.
pub(crate) fn is_proxy_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "forwarded"
                // The client's address, as nginx, Cloudflare, Akamai, Fastly, Fly, Azure, Envoy and older load balancers write it.
                | "x-real-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "fastly-client-ip"
                | "fly-client-ip"
                | "x-azure-clientip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-envoy-external-address"
                | "x-original-forwarded-for"
                | "x-appengine-user-ip"
                // The scheme.
                | "front-end-https"
                | "x-url-scheme"
                // The target, which Symfony, Zend, IIS and some WSGI servers take instead of the request's own.
                | "x-original-url"
                | "x-original-uri"
                | "x-original-host"
                | "x-rewrite-url"
                | "x-host"
                | "x-http-host-override"
        )
}

/// Whether a header is a credential meant for a proxy: this one asks for none, and the shop must not see it.
pub(crate) fn is_proxy_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "proxy-authorization" | "proxy-authenticate")
}

/// Whether the client asks to speak WebSocket on this connection (`Connection: upgrade` and `Upgrade: websocket`, and nothing
/// beside it: what a list is upgraded to is the server's choice, and a tunnel must not become h2c).
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = tokens(headers, &UPGRADE);
    protocols
        .next()
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// Joins the lines that an HTTP/2 client may cut `Cookie` into: towards HTTP/1.1 they must be one (RFC 9113 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return;
    };
    let mut joined = [first.as_bytes(), b"; ", second.as_bytes()].concat();
    for line in lines {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether the body comes in a transfer coding other than chunked. Its layers end here, so passed on without its header the body
/// would be taken for something else (RFC 9112 6.1).
pub(crate) fn has_unknown_coding(headers: &HeaderMap) -> bool {
    // Chunked is applied once (RFC 9112 6.1).
    headers.contains_key(TRANSFER_ENCODING)
        && !tokens(headers, &TRANSFER_ENCODING)
            .map(<[u8]>::to_ascii_lowercase)
            .eq([b"chunked"])
}

/// Puts several equal lengths into one. hyper has read them as one; the next reader may not.
pub(crate) fn join_lengths(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return };
    if lines.next().is_none() && !first.as_bytes().contains(&b',') {
        return;
    }
    let one = tokens(headers, &CONTENT_LENGTH).next().map(<[u8]>::to_vec);
    if let Some(one) = one.and_then(|one| HeaderValue::from_bytes(&one).ok()) {
        headers.insert(CONTENT_LENGTH, one);
    }
}

/// Drops a `Content-Length` that `Transfer-Encoding` overrules (RFC 9112 6.3): passed on, it would tell the next reader that the
/// message ends elsewhere.
pub(crate) fn drop_overruled_length(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
}

/// Adds an address to the end of `X-Forwarded-For`.
pub(crate) fn append_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    let value = match joined(headers) {
        None => peer.clone(),
        Some(mut list) => {
            list.extend_from_slice(b", ");
            list.extend_from_slice(peer.as_bytes());
            HeaderValue::from_bytes(&list).unwrap_or_else(|_| peer.clone())
        }
    };
    headers.insert(X_FORWARDED_FOR, value);
}

/// All lines of `X-Forwarded-For` as one list.
fn joined(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(X_FORWARDED_FOR).iter();
    let mut list = lines.next()?.as_bytes().to_vec();
    for line in lines {
        list.extend_from_slice(b", ");
        list.extend_from_slice(line.as_bytes());
    }
    Some(list)
}

/// Who this process is in `Via` (RFC 9110 7.6.3), and whether a request has been here before.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    name: String,
    h10: HeaderValue,
    h11: HeaderValue,
    h2: HeaderValue,
}

impl Via {
    /// A name that no other process has, so that a chain of several is no loop.
    pub(crate) fn new(random: u32) -> Self {
        let name = format!("penstock-{random:08x}");
        let value = |version: &str| {
            HeaderValue::try_from(format!("{version} {name}")).expect("the name is visible ASCII")
        };
        Self {
            h10: value("1.0"),
            h11: value("1.1"),
            h2: value("2.0"),
            name,
        }
    }

    /// Adds this process to the list.
    pub(crate) fn add(&self, headers: &mut HeaderMap, version: Version) {
        let value = match version {
            Version::HTTP_2 => &self.h2,
            Version::HTTP_10 => &self.h10,
            _ => &self.h11,
        };
        headers.append(VIA, value.clone());
    }

    /// Whether this process is on the list.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(VIA)
            && tokens(headers, &VIA).any(|hop| {
                hop.split(u8::is_ascii_whitespace)
                    .any(|word| word == self.name.as_bytes())
            })
    }
}

/// The comma-separated tokens of all lines of a header.
pub(crate) fn tokens<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("trailer", "x"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn every_name_in_connection_stays_on_it_however_many_and_whatever_stands_beside_it() {
        let names: Vec<String> = (0..40).map(|at| format!("x-{at}")).collect();
        let mut list = names.join(",").into_bytes();
        list.extend_from_slice(b", caf\xE9 , x-last");
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_bytes(&list).unwrap());
        for name in names.iter().map(String::as_str).chain(["x-last", "accept"]) {
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("1"),
            );
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("accept", "1")]));
        let kept = [
            ("cookie", "a=1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("via", "1.1 a"),
        ];
        let mut headers = map(&kept);
        headers.insert(
            CONNECTION,
            HeaderValue::from_static("cookie, x-forwarded-for, via"),
        );
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&kept));
    }

    #[test]
    fn a_process_knows_itself_in_via_and_nobody_else() {
        let (one, other) = (Via::new(1), Via::new(2));
        let mut headers = map(&[("via", "1.1 proxy.example (Apache), 1.0 fred")]);
        one.add(&mut headers, Version::HTTP_2);
        assert!(one.is_in(&headers) && !other.is_in(&headers));
        assert_eq!(
            headers.get_all(VIA).iter().next_back().unwrap(),
            "2.0 penstock-00000001"
        );
    }

    #[test]
    fn codings_and_lengths_are_what_the_next_reader_takes_them_for() {
        assert!(!has_unknown_coding(&map(&[(
            "transfer-encoding",
            "Chunked"
        )])));
        for coding in [
            "gzip, chunked",
            "chunked, gzip",
            "identity",
            "chunked, chunked",
        ] {
            assert!(has_unknown_coding(&map(&[("transfer-encoding", coding)])));
        }
        for lengths in [
            &[("content-length", "5, 5")][..],
            &[("content-length", "5"), ("content-length", "5")],
        ] {
            let mut headers = map(lengths);
            join_lengths(&mut headers);
            assert_eq!(headers, map(&[("content-length", "5")]));
        }
    }

    #[test]
    fn only_a_websocket_asks_for_a_tunnel_and_needs_both_headers() {
        let both = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ];
        assert!(wants_websocket(&map(&both)));
        assert!(!wants_websocket(&map(&both[..1])));
        assert!(!wants_websocket(&map(&both[1..])));
        for other in ["h2c", "websocket, h2c", "h2c, websocket", "TLS/1.0", ""] {
            assert!(
                !wants_websocket(&map(&[both[0], ("upgrade", other)])),
                "{other}"
            );
        }
    }

    #[test]
    fn an_address_goes_to_the_end_of_the_list() {
        let peer = HeaderValue::from_static("192.0.2.7");
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ]);
        append_forwarded_for(&mut headers, &peer);
        assert_eq!(
            headers,
            map(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7")])
        );
    }
}
