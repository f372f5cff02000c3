//! One request on its way through the layers, and the answer that comes back.

mod body;
mod refusal;

use std::{net::IpAddr, rc::Rc, time::Duration};

use http::request::Parts;
use tokio::time::Instant;

pub(crate) use self::{body::Body, refusal::Form};
use crate::{connection::Client, http::RequestBody, route::Route};

/// One request, as the layers hand it on.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Method, target and header.
    pub head: Parts,
    pub body: RequestBody,
    /// Where it came in.
    pub client: Rc<Client>,
    /// Whose address it carries: the peer's, or the one a trusted proxy vouches for.
    pub client_ip: IpAddr,
    /// Where it goes; `None` if no route matches.
    pub route: Option<Rc<Route>>,
    /// The methods that routes of this host and path have, if none has the request's.
    pub allowed: Option<String>,
    /// When its header was complete.
    pub started: Instant,
}

/// How much of the time until an answer's last byte is no latency: a buyer who waits for news waits on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBack {
    /// The answer was held back for this long.
    For(Duration),
    /// The answer is a stream of events: only its header has a latency.
    Stream,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Exchanges without a connection, for tests of layers.

    use http::Request;

    use super::*;
    use crate::{config, http::Protocol};

    impl Exchange {
        /// A request of a client at 192.0.2.7 that is trusted with nothing, to no route.
        pub(crate) fn for_test(request: Request<&'static str>) -> Self {
            let (head, body) = request.into_parts();
            let server = config::Server::for_test();
            let peer = ([192, 0, 2, 7], 4711).into();
            Self {
                head,
                body: RequestBody::full(body.into()),
                client: Rc::new(Client::new(peer, Protocol::H1, false, &server, None)),
                client_ip: peer.ip(),
                route: None,
                allowed: None,
                started: Instant::now(),
            }
        }
    }
}
