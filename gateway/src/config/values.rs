//! The written forms of single values: times, sizes, addresses, networks, and what a ring hashes on.

use std::{fmt, net::Ipv6Addr, str::FromStr, time::Duration};

use http::HeaderName;

use super::section::Section;

/// Bytes, shown with the largest unit that divides them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A time, shown with the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

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

/// `250ms`, `30s`, `15m`, `2h`, `1d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// `512B`, `64KiB`, `10MiB`, `1GiB`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit_bytes)
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

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit.trim()))
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let units = [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1_000, "s"),
        ];
        match units
            .iter()
            .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", ms / unit),
            None => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units
            .iter()
            .find(|(bytes, _)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
        {
            Some((bytes, unit)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
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
    fn times_and_sizes_are_read_as_written() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(size("64KiB"), Some(65536));
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 year",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "5", "KiB", "1KB", "18446744073709551615GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
        let told = |text| Time(duration(text).unwrap()).to_string();
        assert_eq!((told("3600s"), told("90s")), ("1h".into(), "90s".into()));
        assert_eq!(
            (told("1500ms"), told("0s")),
            ("1500ms".into(), "0ms".into())
        );
        assert_eq!(Size(1 << 20).to_string(), "1MiB");
        assert_eq!(Size(1500).to_string(), "1500B");
    }

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
