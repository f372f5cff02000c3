//! All routes of a core at one time: swapped whole when the configuration is read again.

use std::{rc::Rc, sync::Arc};

use http::Method;

use super::{Found, Route, RouteTable};
use crate::meters::RouteMeters;

/// All routes of a core.
#[derive(Debug)]
pub(crate) struct Routes {
    table: RouteTable,
    /// In the order of the table.
    routes: Vec<Rc<Route>>,
    /// The name of no route.
    pub no_name: Arc<str>,
    /// What is counted of requests that match no route.
    pub no_meters: Rc<RouteMeters>,
    /// Of refusals one in so many is logged.
    pub sample_refusals: u64,
}

impl Routes {
    /// Routes, and the table that finds them by their positions in it.
    pub(crate) fn new(
        table: RouteTable,
        routes: Vec<Rc<Route>>,
        no_name: Arc<str>,
        no_meters: Rc<RouteMeters>,
        sample_refusals: u64,
    ) -> Self {
        Self {
            table,
            routes,
            no_name,
            no_meters,
            sample_refusals,
        }
    }

    /// The route of a request, or else the methods that routes of this host and path have, if there are such routes.
    pub(crate) fn find<'h>(
        &self,
        host: impl Fn() -> &'h str,
        path: &str,
        method: &Method,
    ) -> (Option<Rc<Route>>, Option<String>) {
        match self.table.find(&host, path, method) {
            Found::Route(at) => (Some(Rc::clone(&self.routes[at])), None),
            Found::OtherMethod => (None, Some(self.table.allowed(host(), path))),
            Found::Nothing => (None, None),
        }
    }
}
