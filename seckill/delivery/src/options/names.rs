//! Names and hosts inside the table's values.

use http::uri::Authority;

/// Names of queues, streams, subjects and topics: what all brokers take.
pub(super) const NAME: &str = "1 to 200 letters, digits, dots, dashes or underscores";

/// Checks a name.
pub(super) fn name(text: &str) -> Option<String> {
    let is_name = (1..=200).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    is_name.then(|| text.to_owned())
}

/// `HOST` or `HOST:PORT`; an IPv6 address in brackets, which the host is given without.
pub(super) fn host_port(text: &str, default: u16) -> Option<(String, u16)> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let port = match authority.port_u16() {
        None if host.len() == text.len() => default,
        port => port.filter(|port| *port != 0)?,
    };
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty()).then(|| (host.to_owned(), port))
}
