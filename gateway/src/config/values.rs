//! The written forms of single values: names, addresses, and what a ring or a limit goes by.

use std::{net::Ipv6Addr, str::FromStr};

use http::HeaderName;
use settings::Section;

/// What decides the place on the hash ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address.
    Ip,
    /// A header's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The path without the query.
    Path,
    /// A parameter of the query.
    Query(String),
}

/// Whose bucket a request draws from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address; one IPv6 /64 is one client.
    Ip,
    /// A header's first value; the client's address where it is missing.
    Header(HeaderName),
    /// The buyer as `[seckill] buyer` finds them, proven; the client's address where there is none.
    Buyer,
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets, and the port is not 0.
pub fn host_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host_is_fine = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        }
    };
    (host_is_fine && port != 0).then(|| text.to_owned())
}

/// The form of [`HashOn`] for messages.
pub const HASH_ON_FORMS: &str = "ip, header:NAME, cookie:NAME, path or query:NAME";

impl FromStr for HashOn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "ip" => Ok(Self::Ip),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| ()),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            Some(("query", name)) if is_token(name) => Ok(Self::Query(name.to_owned())),
            _ => Err(()),
        }
    }
}

impl FromStr for LimitKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "ip" => Ok(Self::Ip),
            None if text == "buyer" => Ok(Self::Buyer),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

/// Names of cookies, query parameters, upstreams, routes and limits: no spaces, no separators.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// A name for references and metric labels.
pub(super) fn name(section: &Section<'_>, default: Option<String>) -> Option<String> {
    let form = "a name of letters, digits, - _ and .";
    if section.value("name").is_none() {
        if default.is_none() {
            section.missing("name", form);
        }
        return default;
    }
    section.parsed("name", form, |text| is_token(text).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:3000", "[::1]:3000", "shop.internal:80"] {
            assert!(host_port(good).is_some(), "{good}");
        }
        for bad in [
            "foo",
            ":80",
            "a:0",
            "a:99999",
            "::1:80",
            "[::1]",
            "a b:80",
            "http://a:80",
        ] {
            assert!(host_port(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn hash_keys_are_read_as_written() {
        assert_eq!("ip".parse(), Ok(HashOn::Ip));
        assert_eq!("cookie:sid".parse(), Ok(HashOn::Cookie("sid".into())));
        for bad in ["", "header:", "header:a b", "cookie:", "jwt:sub", "ip:x"] {
            assert!(bad.parse::<HashOn>().is_err(), "{bad}");
        }
    }
}
