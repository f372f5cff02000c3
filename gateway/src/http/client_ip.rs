//! Whose request it is: the client's address behind trusted proxies, and as bytes for hashing and for shares. Pure.

use std::net::IpAddr;

use http::HeaderMap;

use super::{headers::X_FORWARDED_FOR, network::Cidr};

/// The client's address as bytes for hashing.
pub(crate) type ClientBits = [u8; 16];

/// The client's address as bytes for shares: an IPv6 client owns a whole /64 and could walk through its addresses.
pub(crate) fn client_share(ip: IpAddr) -> ClientBits {
    let mut bits = client_bits(ip);
    if matches!(ip.to_canonical(), IpAddr::V6(_)) {
        bits[8..].fill(0);
    }
    bits
}

/// The client's address as bytes for hashing.
pub(crate) fn client_bits(ip: IpAddr) -> ClientBits {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Whose address a request carries: the last hop of `X-Forwarded-For` that is not itself a trusted proxy, if the peer is one;
/// else the peer's own. From the right, because each hop writes what stands to its left.
pub(crate) fn client_ip(
    headers: &HeaderMap,
    peer: IpAddr,
    is_trusted: bool,
    trusted: &[Cidr],
) -> IpAddr {
    if !is_trusted {
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
    use http::HeaderValue;

    use super::*;

    fn found_in(headers: &HeaderMap, peer: &str) -> String {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "2001:db8::/32"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let peer: IpAddr = peer.parse().unwrap();
        let is_trusted = trusted.iter().any(|network| network.contains(peer));
        client_ip(headers, peer, is_trusted, &trusted).to_string()
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
