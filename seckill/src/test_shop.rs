//! For the tests of both APIs: an engine on real parts (embedded store, SQLite ledger) with one sale, and a clock that stands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use stock::{
    StockStore,
    embedded::{EmbeddedStore, Options, SyncPolicy, Tuning, WriteMode},
};
use tower::ServiceExt;

use crate::{
    clock::WallClock,
    engine::SaleEngine,
    ledger::{self, OrderLedger},
    sale::NewSale,
};

/// When the sale begins.
pub(crate) const START: u64 = 1_000_000;

/// Status, JSON body (null if it is none), and the rest of a response.
pub(crate) type Answer = (StatusCode, Value, Response<()>);

/// An engine with a sale `spring` of 3 units of `shoe`, two a buyer, that has begun.
pub(crate) struct TestShop {
    pub(crate) engine: Arc<SaleEngine>,
    pub(crate) now: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

impl TestShop {
    pub(crate) async fn open() -> Self {
        Self::open_on(|store| store).await
    }

    /// The same, on what is made of its store.
    pub(crate) async fn open_on(
        wrap: impl FnOnce(Arc<dyn StockStore>) -> Arc<dyn StockStore>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(START + 1));
        let reader = now.clone();
        let clock: WallClock = Arc::new(move || reader.load(Ordering::Relaxed));
        let options = Options {
            folder: folder.path().join("journal"),
            sync: SyncPolicy::Durable,
            write_mode: WriteMode::Plain,
        };
        let tuning = Tuning {
            guards_clock: false,
            ..Tuning::default()
        };
        let store: Arc<dyn StockStore> =
            Arc::new(EmbeddedStore::open_with(&options, tuning, clock.clone()).unwrap());
        let url = format!("sqlite:{}", folder.path().join("ledger.db").display());
        let ledger = OrderLedger::new(ledger::connect(&url).await.unwrap());
        let bell = Arc::default();
        let engine = SaleEngine::start(wrap(store), ledger, clock, Duration::from_secs(5), bell)
            .await
            .unwrap();
        let sale = json!({
            "id": "spring", "starts_at_ms": START, "ends_at_ms": START + 1000, "pay_within": "1m", "buyer_limit": 2,
            "currency": "usd", "skus": [{"sku": "shoe", "stock": 3, "price_minor": 500}]
        });
        let sale = serde_json::from_value::<NewSale>(sale)
            .unwrap()
            .check()
            .unwrap();
        engine.create_sale(sale).await.unwrap();
        Self {
            engine,
            now,
            _folder: folder,
        }
    }

    /// Units of `shoe` for sale.
    pub(crate) async fn available(&self) -> u64 {
        let sale = self.engine.catalogue().sales()[0].clone();
        let segment = sale.segments().next().unwrap().id.clone();
        self.engine
            .store()
            .snapshot(&segment)
            .await
            .unwrap()
            .available
    }
}

/// Sends one request through a router.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let document = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (parts.status, document, Response::from_parts(parts, ()))
}
