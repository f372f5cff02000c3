//! The sale API as an axum router: what buyers call, behind the edge's layers.
//!
//! A request is checked for its form here, completely, before anything else sees it; every refusal is a problem document with
//! a stable code ([`problem`]). The purchase itself is [`crate::purchase`].

mod buy;
mod extract;
mod orders;
pub mod problem;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, routing};
use http::HeaderName;

use self::problem::{Code, Problem};
use crate::engine::SaleEngine;

/// A valid body has about 60 bytes; nothing near this limit can be one.
const BODY_LIMIT: usize = 4 << 10;

/// What the handlers share.
pub(crate) struct Api {
    engine: Arc<SaleEngine>,
    /// The header that names the buyer. The edge removes it from requests of hops that may not set it.
    buyer_header: HeaderName,
}

/// The routes below `/v1/sales` and `/v1/orders`.
pub fn router(engine: Arc<SaleEngine>, buyer_header: HeaderName) -> Router {
    Router::new()
        .route("/v1/sales/{sale}", routing::get(orders::sale))
        .route(
            "/v1/sales/{sale}/orders",
            routing::post(buy::buy).get(orders::poll),
        )
        .route(
            "/v1/orders/{order}",
            routing::get(orders::show).delete(orders::cancel),
        )
        .fallback(|| async { Problem::new(Code::NotFound, "the sale API has no such path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Code::MethodNotAllowed,
                "see the sale API's documentation for the methods of this path",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new(Api {
            engine,
            buyer_header,
        }))
}

#[cfg(test)]
mod tests;
