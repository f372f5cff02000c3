//! Answers that send the client to another place.

use http::{HeaderValue, Response, StatusCode, header::LOCATION};

use crate::{
    exchange::{Body, Exchange},
    http::{Problem, target::host_of},
};

/// Sends the client to the same path at `https` or at an origin.
pub(crate) fn redirect(exchange: &Exchange, to: &str, status: StatusCode) -> Response<Body> {
    let path = exchange
        .head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let location = match to {
        "https" => {
            let Some(host) = host_of(&exchange.head).filter(|host| !host.is_empty()) else {
                // An HTTP/1.0 client that names no host cannot be sent to one.
                return Problem::BadRequest.response();
            };
            let name = host.rsplit_once(':').map_or(host, |(name, port)| {
                if port.bytes().all(|digit| digit.is_ascii_digit()) {
                    name
                } else {
                    host
                }
            });
            format!("https://{name}{path}")
        }
        origin => format!("{origin}{path}"),
    };
    match HeaderValue::try_from(location) {
        Ok(location) => {
            let mut response = Response::new(Body::EMPTY);
            *response.status_mut() = status;
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => Problem::BadRequest.response(),
    }
}
