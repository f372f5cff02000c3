//! From a request to an answer of the shop: which endpoints are tried, how messages are rewritten, and tunnels.

pub(crate) mod forward;
mod rewrite;
pub(crate) mod tunnel;
mod walk;

use std::rc::Rc;

use crate::{config, connection::Drain, http::headers::Via, snapshot::Snapshot};

/// What forwarding needs of its core.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// The `[server]` table as it is now.
    pub server: Rc<Snapshot<config::Server>>,
    /// Who this process is to others.
    pub via: Rc<Via>,
    /// What tunnels end with.
    pub drain: Rc<Drain>,
}
