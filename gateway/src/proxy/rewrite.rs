//! What changes in a message between the two sides. Pure.

use http::{
    HeaderValue, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST},
    request, response,
    uri::PathAndQuery,
};

use crate::{
    connection::Client,
    http::headers::{
        Via, X_FORWARDED_HOST, X_FORWARDED_PROTO, append_forwarded_for, drop_overruled_length,
        has_unknown_coding, join_cookies, join_lengths, remove_hop_by_hop,
    },
};

/// The request as an endpoint gets it: HTTP/1.1, origin form, the client's host, no header of the client's connection.
pub(super) fn rewrite_request(head: &mut request::Parts, client: &Client, via: Option<&Via>) {
    if let Some(via) = via {
        via.add(&mut head.headers, head.version);
    }
    remove_hop_by_hop(&mut head.headers);
    join_cookies(&mut head.headers);
    // hyper has told the client to go on, or will when the endpoint reads the body.
    head.headers.remove(EXPECT);
    if let Some(authority) = head.uri.authority() {
        // HTTP/2 and absolute form carry the host in the target.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    }
    if !head.headers.contains_key(HOST) {
        // An HTTP/1.0 client named none, and HTTP/1.1 has to name one: an empty one says so (RFC 9112 3.2).
        head.headers.insert(HOST, HeaderValue::from_static(""));
    }
    head.version = Version::HTTP_11;
    // A trusted proxy's word stands; it knows what the client asked it.
    if !head.headers.contains_key(X_FORWARDED_PROTO) {
        head.headers.insert(X_FORWARDED_PROTO, client.scheme());
    }
    if !head.headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = head.headers.get(HOST).cloned()
    {
        head.headers.insert(X_FORWARDED_HOST, host);
    }
    append_forwarded_for(&mut head.headers, &client.peer_value);
}

/// The header of a response as the client gets it; false if the endpoint's framing cannot be passed on.
pub(super) fn rewrite_response(head: &mut response::Parts) -> bool {
    if has_unknown_coding(&head.headers) {
        return false;
    }
    drop_overruled_length(&mut head.headers);
    join_lengths(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        // It has no body, so a length is a mistake, and HTTP/2 clients take it for a cut one.
        head.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    true
}
