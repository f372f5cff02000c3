//! The written forms of names and addresses, which several sections use.

use std::net::Ipv6Addr;

use settings::Section;

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets, and the port is not 0.
pub(super) fn host_port(text: &str) -> Option<String> {
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

/// What the address of an endpoint on the same machine begins with.
pub(crate) const UNIX: &str = "unix:";

/// What the kernel has room for in the address of a socket, and a NUL (`man 7 unix`).
const UNIX_PATH_MAX: usize = 107;

/// The form of [`endpoint_address`] for messages.
pub(super) const ENDPOINT_FORM: &str = "host:port, or unix:/PATH with a path of at most 107 bytes";

/// `host:port`, or `unix:` and the absolute path of a socket.
pub(super) fn endpoint_address(text: &str) -> Option<String> {
    let Some(path) = text.strip_prefix(UNIX) else {
        return host_port(text);
    };
    let is_path = path.starts_with('/')
        && !path.ends_with('/')
        && path.len() <= UNIX_PATH_MAX
        && !path.chars().any(char::is_control);
    is_path.then(|| text.to_owned())
}

/// Names of cookies, query parameters, upstreams, routes and limits: no spaces, no separators.
pub(super) fn is_token(text: &str) -> bool {
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
    fn an_endpoint_may_be_the_socket_of_a_file() {
        let longest = format!("unix:/{}", "a".repeat(UNIX_PATH_MAX - 1));
        for good in ["127.0.0.1:3000", "unix:/run/shop.sock", &longest] {
            assert_eq!(endpoint_address(good).as_deref(), Some(good));
        }
        let longer = format!("{longest}a");
        for bad in [
            "unix:",
            "unix:shop.sock",
            "unix:/run/",
            "unix:/a\0b",
            &longer,
        ] {
            assert_eq!(endpoint_address(bad), None, "{bad}");
        }
    }
}
