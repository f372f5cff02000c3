//! What decides a request's place on a ring: the client's address, a header, a cookie, the path or a parameter.

use http::{HeaderMap, Uri, header::COOKIE};

use super::ring::hash64;
use crate::{config::HashOn, http::client_ip::ClientBits};

/// The place of a request on the ring. A request without the header, cookie or parameter goes by its client's address: all
/// such requests together must not land on one endpoint.
pub(crate) fn hash_of(on: &HashOn, client: &ClientBits, headers: &HeaderMap, uri: &Uri) -> u64 {
    let found = match on {
        HashOn::Ip => None,
        HashOn::Header(name) => headers.get(name).map(|value| value.as_bytes()),
        HashOn::Cookie(name) => cookie(headers, name),
        HashOn::Path => Some(uri.path().as_bytes()),
        HashOn::Query(name) => uri.query().and_then(|query| parameter(query, name)),
    };
    hash64(found.unwrap_or(client))
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn parameter<'u>(query: &'u str, name: &str) -> Option<&'u [u8]> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_is_hashed_by_what_the_configuration_says() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; sid=xyz"));
        headers.append("x-user-id", HeaderValue::from_static("ann"));
        let uri: Uri = "/p?a=1&sku=blue".parse().unwrap();
        let client = [7; 16];
        let old = headers.clone();
        let hash = |on: &str| hash_of(&on.parse().unwrap(), &client, &old, &uri);
        assert_eq!(hash("cookie:sid"), hash64(b"xyz"));
        assert_eq!(hash("header:x-user-id"), hash64(b"ann"));
        assert_eq!(hash("query:sku"), hash64(b"blue"));
        assert_eq!(hash("path"), hash64(b"/p"));
        assert_eq!(hash("ip"), hash64(&client));
        assert_eq!(hash("cookie:none"), hash("ip"));
        // A byte that is no text in another cookie's value; what broke was stickiness.
        headers.insert(
            COOKIE,
            HeaderValue::from_bytes(b"n=caf\xE9; sid=beta").unwrap(),
        );
        assert_eq!(
            hash_of(&"cookie:sid".parse().unwrap(), &client, &headers, &uri),
            hash64(b"beta")
        );
    }
}
