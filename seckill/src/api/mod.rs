//! The sale API as an axum router: what buyers call, behind the edge's layers.
//!
//! A request is checked for its form here, completely, before anything else sees it; every refusal is a problem document with
//! a stable code ([`problem`]). The purchase itself is [`crate::purchase`].

mod admit;
mod buy;
mod carts;
pub(crate) mod extract;
pub mod identity;
mod lottery;
mod metadata;
mod orders;
pub mod problem;
mod slots;
mod waiting;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use http::{HeaderMap, Method};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use self::metadata::{FindSecret, Secret};
pub use self::waiting::{Held, WaitingConfig};
use self::{
    identity::Identity,
    problem::{Code, Problem},
    waiting::Waiting,
};
use crate::{
    catalogue::OpenSale,
    engine::SaleEngine,
    ids::{BuyerId, SkuId},
    sku_stock::Stock,
};

/// Most bodies have about 60 bytes. The longest cart has 1.5 KiB, and the longest metadata 6 KiB where each character is escaped.
const BODY_LIMIT: usize = 8 << 10;

/// What the handlers share.
pub(crate) struct Api {
    engine: Arc<SaleEngine>,
    identity: Identity,
    waiting: Waiting,
    /// Where the ledger is asked, if the handlers run elsewhere.
    control: Option<Handle>,
    find_secret: FindSecret,
}

impl Api {
    /// Who sent these headers.
    fn buyer(&self, headers: &HeaderMap) -> Result<BuyerId, Problem> {
        self.identity.buyer(headers, self.engine.now_ms())
    }

    /// Runs what waits for SQL: here, or on the runtime that the ledger's connections belong to. `None` if it panicked there.
    async fn on_control<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        match &self.control {
            None => Some(future.await),
            Some(control) => control.spawn(future).await.ok(),
        }
    }

    /// The sale that a path names.
    fn sale(&self, id: &str) -> Result<Arc<OpenSale>, Problem> {
        extract::sale(&self.engine, id)
    }
}

/// The stock of a sku that a request names.
fn stock_of(sale: &OpenSale, sku: &str) -> Result<Arc<Stock>, Problem> {
    let found = SkuId::try_new(sku)
        .ok()
        .and_then(|sku| sale.stock(&sku).cloned());
    found.ok_or_else(|| Problem::new(Code::NoSuchSku, format!("sku: {sku:?} is not on sale here")))
}

/// [`router_with`] the default bounds, for a process that does not drain and knows no secrets.
pub fn router(engine: Arc<SaleEngine>, identity: Identity) -> Router {
    let (waiting, draining) = (WaitingConfig::default(), CancellationToken::new());
    router_with(engine, identity, waiting, draining, None, |_| None)
}

/// Whether a request waits for the stock store only, so that it may run on a core of the data plane: a purchase, by sku or as a cart. What
/// it asks the ledger, if it is the repetition of another, it asks on the runtime that [`router_with`] was given. All other requests wait
/// for SQL.
pub fn is_purchase(method: &Method, path: &str) -> bool {
    let mut parts = path
        .strip_prefix("/v1/sales/")
        .unwrap_or_default()
        .split('/');
    let (sale, what, rest) = (parts.next(), parts.next(), parts.next());
    *method == Method::POST
        && sale.is_some_and(|sale| !sale.is_empty())
        && matches!(what, Some("orders" | "carts"))
        && rest.is_none()
}

/// The routes below `/v1/sales` and `/v1/orders`. When `draining` is cancelled, waiting requests are answered and streams end. Handlers that run
/// elsewhere than on `control` ask the ledger there. What `find_secret` finds in metadata is refused.
pub fn router_with(
    engine: Arc<SaleEngine>,
    identity: Identity,
    waiting: WaitingConfig,
    draining: CancellationToken,
    control: Option<Handle>,
    find_secret: FindSecret,
) -> Router {
    Router::new()
        .route("/v1/sales/{sale}", get(orders::sale))
        .route("/v1/sales/{sale}/orders", post(buy::buy).get(orders::poll))
        .route(
            "/v1/sales/{sale}/entries",
            post(lottery::enter).get(lottery::own),
        )
        .route("/v1/sales/{sale}/draw", get(lottery::draw))
        .route("/v1/sales/{sale}/slots", get(slots::list))
        .route("/v1/orders/{order}/code", post(slots::code))
        .route("/v1/sales/{sale}/draw/entries", get(lottery::entries))
        .route(
            "/v1/sales/{sale}/carts",
            post(carts::buy).get(carts::poll).delete(carts::cancel),
        )
        .route(
            "/v1/orders/{order}",
            get(orders::show).delete(orders::cancel),
        )
        .route("/v1/orders/{order}/events", get(waiting::events::events))
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
            identity,
            waiting: Waiting::new(waiting, draining),
            control,
            find_secret,
        }))
}

#[cfg(test)]
mod tests;
