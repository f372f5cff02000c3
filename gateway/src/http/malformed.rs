//! Requests that not everybody who reads them would understand the same way. hyper has already refused broken framing; these are the rules
//! it leaves to its user. Pure.

use http::{
    Method, Version,
    header::{CONTENT_LENGTH, HOST},
    request::Parts,
};

use super::target::{is_authority, is_same_authority, read_path};

/// Whether the request is too malformed to be understood the same way by everybody who reads it.
pub(crate) fn is_malformed(head: &Parts) -> bool {
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
