//! Header rules of a proxy (RFC 9110 7.6.1): what belongs to one connection stays on it. Pure.
//!
//! Used by `forward.rs` in both directions and by `stack/sanitise.rs`.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
};

/// Who was before us.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host the client asked.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The port the client asked; ours is never added, a client's never believed.
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// nginx's form of the client's address.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Names in `Connection` beyond this many are not honoured but make no difference either: the named headers go on as ordinary
/// ones. Bounds the work a client can ask for.
const NAMED_MAX: usize = 16;

/// Removes the headers that belong to one connection, including those that `Connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .take(NAMED_MAX)
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    for name in [TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// Removes credentials meant for a proxy: this one asks for none, and the shop must not see them.
pub fn remove_proxy_credentials(headers: &mut HeaderMap) {
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(PROXY_AUTHENTICATE);
}

/// Whether the client asks to leave HTTP on this connection (`Connection: upgrade` and `Upgrade: …`).
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Adds an address to the end of `X-Forwarded-For`.
pub fn append_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
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

/// The comma-separated tokens of all lines of a header.
pub fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
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
            ("trailer", "x"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let both = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert!(wants_upgrade(&map(&both)));
        assert!(!wants_upgrade(&map(&both[..1])));
        assert!(!wants_upgrade(&map(&both[1..])));
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
