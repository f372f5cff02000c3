//! One reading of a request's target and host: the one that the server behind will make. Pure.
//!
//! A route is chosen by the path and guards it with limits. A client that finds a spelling that the gateway reads as one path and the shop as
//! another walks round them. So the path is read as servers read it (RFC 3986 6.2.2: percent-decoded once, with empty segments merged and
//! the parameters of segments left out, as nginx, Apache and servlet containers do), and what they read differently is refused.

use std::borrow::Cow;

use http::{header::HOST, request::Parts};
use percent_encoding::percent_decode_str;

/// The path by which routes are chosen. `None` if servers disagree about it: dot segments however written, control characters, an
/// escape that is none.
pub(crate) fn read_path(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') {
        // `*` of OPTIONS.
        return Some(Cow::Borrowed(path));
    }
    if is_plain(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    if !has_whole_escapes(path.as_bytes()) {
        return None;
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if decoded.iter().any(|byte| byte.is_ascii_control()) {
        return None;
    }
    let decoded = String::from_utf8_lossy(&decoded);
    let mut read = String::with_capacity(decoded.len());
    for segment in decoded.split(['/', '\\']) {
        // Before the parameters too: `..;x` is `..` to a servlet container.
        let name = segment.split(';').next().unwrap_or_default();
        match name {
            "." | ".." => return None,
            // An empty segment between two slashes; the last one is the slash at the end.
            "" => {}
            name => {
                read.push('/');
                read.push_str(name);
            }
        }
    }
    if decoded.ends_with(['/', '\\']) || read.is_empty() {
        read.push('/');
    }
    Some(Cow::Owned(read))
}

/// Nothing in it that could be read in two ways: nearly every path.
fn is_plain(path: &[u8]) -> bool {
    path.iter()
        .all(|byte| !matches!(byte, b'%' | b'\\' | b';' | 0..=b' ' | 0x7f))
        && !path.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

fn has_whole_escapes(path: &[u8]) -> bool {
    path.iter().enumerate().all(|(at, byte)| {
        *byte != b'%'
            || path
                .get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The host a request asks for, with its port: the target's authority (HTTP/2, absolute form), else the `Host` header.
pub(crate) fn host_of(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST)?.to_str().ok(),
    }
}

/// Whether the text is `host` or `host:port` (RFC 3986 3.2): a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match &rest[end + 1..] {
                [] => return true,
                [b':', port @ ..] => (&rest[..0], port),
                _ => return false,
            }
        }
        None => match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &text[..0]),
        },
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,=".contains(byte);
    host.iter().all(is_name) && is_port(port)
}

fn is_port(port: &[u8]) -> bool {
    port.iter().all(u8::is_ascii_digit)
        && (port.is_empty()
            || std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok()))
}

/// Whether two authorities name the same host and port, where a port that is left out is the scheme's.
pub(crate) fn is_same_authority(one: &str, other: &str, scheme: &str) -> bool {
    let default = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else {
        ":80"
    };
    let bare = |text: &str| {
        let text = text.to_ascii_lowercase();
        let stripped = text.strip_suffix(default).or(text.strip_suffix(':'));
        stripped.unwrap_or(&text).to_owned()
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_read_as_the_shop_reads_it() {
        for spelling in [
            "/checkout/a",
            "/%63heckout/a",
            "//checkout/a",
            "/checkout//a",
            "/checkout%2fa",
            "/checkout%2Fa",
            "/checkout%5ca",
            "/checkout;x=1/a",
            "/;x/checkout/a",
            "/checkout\\a",
            "/%2fcheckout/a",
        ] {
            assert_eq!(read_path(spelling).unwrap(), "/checkout/a", "{spelling}");
        }
        assert_eq!(read_path("/%E4%B8%AD").unwrap(), "/中");
        assert_eq!(read_path("/a%2520b").unwrap(), "/a%20b");
        assert_eq!(read_path("/a/%2f").unwrap(), "/a/");
        assert_eq!(read_path("*").unwrap(), "*");
    }

    #[test]
    fn paths_that_could_be_read_twice_are_refused() {
        for bad in [
            "/a/../b",
            "/..",
            "/a/.",
            "/%2e%2E/x",
            "/a/.%2e",
            "/x/..%2fcheckout",
            "/x/..%5ccheckout",
            "/x\\..\\checkout",
            "/x/..;/checkout",
            "/x/%2e%2e%3b/checkout",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%2",
            "/a%zz",
        ] {
            assert_eq!(read_path(bad), None, "{bad}");
        }
        for good in [
            "/",
            "/.well-known/x",
            "/a/...",
            "/a.b/..c",
            "/a%2e",
            "/a/",
            "/a;b",
        ] {
            assert!(read_path(good).is_some(), "{good}");
        }
    }

    proptest! {
        /// Reading is stable: what was read has no second reading but for what stood escaped twice.
        #[test]
        fn what_was_read_is_read_the_same_again(path in "/[a-z/.;%25]{0,24}") {
            if let Some(read) = read_path(&path)
                && !read.contains(['%', ';'])
            {
                let again = read_path(&read).map(Cow::into_owned);
                prop_assert_eq!(again, Some(read.into_owned()));
            }
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port_is_a_number() {
        for good in [
            "",
            "a",
            "a.b:80",
            "a:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "x_y.test",
            "a:65535",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "a:http", "a:80:80", "[::1", "a[b]c", "[::1]x", "[::1]80", "[x]", "a/b", "u@a", "a b",
            "a:65536", "a\\b", "::1", "a;b",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
        assert!(!is_authority(b"caf\xe9"));
    }

    #[test]
    fn a_port_that_is_left_out_is_the_schemes() {
        assert!(is_same_authority("A.test:443", "a.test", "https"));
        assert!(is_same_authority("a.test", "a.test:80", "http"));
        assert!(is_same_authority("a.test:8443", "a.test:8443", "https"));
        assert!(!is_same_authority("a.test:80", "a.test", "https"));
        assert!(!is_same_authority("a.test", "b.test", "http"));
    }
}
