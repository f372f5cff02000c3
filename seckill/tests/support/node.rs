//! One gateway's sale API over a ledger and a store that it shares with others.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, BodyDataStream},
    response::Response,
};
use futures_util::StreamExt;
use http::{HeaderName, Request};
use http_body_util::BodyExt;
use seckill::{
    api::{self, WaitingConfig, identity::Identity},
    engine::SaleEngine,
    ids::OrderId,
    ledger::{self, OrderLedger},
};
use serde_json::Value;
use stock::StoredOrder;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use super::{
    ledger::{TestLedger, segment},
    memory_store::MemoryStore,
};

/// A node: its own pool, engine, router and reader of news.
pub struct Node {
    pub api: Router,
    pub engine: Arc<SaleEngine>,
    pub draining: CancellationToken,
    _stop: DropGuard,
}

impl Node {
    pub async fn start(test: &TestLedger, store: &Arc<MemoryStore>) -> Self {
        Self::start_with(test, store, WaitingConfig::default()).await
    }

    pub async fn start_with(
        test: &TestLedger,
        store: &Arc<MemoryStore>,
        waiting: WaitingConfig,
    ) -> Self {
        let ledger = OrderLedger::new(ledger::connect(&test.url).await.unwrap());
        let bell = Arc::default();
        let deadline = Duration::from_secs(5);
        let engine = SaleEngine::start(store.clone(), ledger.clone(), test.clock(), deadline, bell)
            .await
            .unwrap();
        engine.refresh().await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(ledger.poll_changes(stop.clone()));
        let draining = CancellationToken::new();
        let identity = Identity::Header(HeaderName::from_static("x-buyer-id"));
        Self {
            api: api::router_with(
                engine.clone(),
                identity,
                waiting,
                draining.clone(),
                None,
                |_| None,
            ),
            engine,
            draining,
            _stop: stop.drop_guard(),
        }
    }

    pub fn ledger(&self) -> &OrderLedger {
        self.engine.ledger()
    }

    /// A GET of one of the test's buyers.
    pub async fn get(&self, path: &str, buyer: u64, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::get(path).header("x-buyer-id", format!("buyer-{buyer}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.api.clone().oneshot(request).await.unwrap()
    }

    /// Settles accepted orders, as this node's worker would.
    pub async fn settle(&self, test: &TestLedger, orders: &[StoredOrder]) {
        let ledger = self.ledger();
        ledger
            .settle(&segment(), 1, orders, test.now_ms())
            .await
            .unwrap();
    }

    /// Cancels, as its buyer would.
    pub async fn cancel(&self, test: &TestLedger, order: &StoredOrder) {
        let ledger = self.ledger();
        ledger
            .cancel(order.order, &order.buyer, test.now_ms())
            .await
            .unwrap();
    }

    /// A payment begins, fails or succeeds, as the payment side would have it.
    pub async fn pay(&self, test: &TestLedger, order: OrderId, step: Pay) {
        let ledger = self.ledger();
        let mut tx = ledger.pool().begin().await.unwrap();
        match step {
            Pay::Hold => drop(
                ledger
                    .hold(&mut tx, order, "pi_1", test.now_ms())
                    .await
                    .unwrap(),
            ),
            Pay::Drop => drop(ledger.drop_hold(&mut tx, order, "pi_1").await.unwrap()),
            Pay::Paid => {
                let paid = ledger
                    .mark_paid(&mut tx, order, "pi_1", test.now_ms())
                    .await;
                drop(paid.unwrap());
            }
        }
        tx.commit().await.unwrap();
        ledger.wake();
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Pay {
    Hold,
    Drop,
    Paid,
}

pub fn order_path(order: OrderId) -> String {
    format!("/v1/orders/{order}")
}

pub async fn json(response: Response) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

/// The events of a stream, one by one.
pub struct EventReader {
    body: BodyDataStream,
    text: String,
}

/// One event: its id and the status it tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub id: u64,
    pub status: String,
}

impl EventReader {
    pub fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next block of the stream, comments and `retry` included; `None` at its end.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let piece = tokio::time::timeout(Duration::from_secs(10), self.body.next());
            let piece = piece.await.expect("nothing came")?;
            self.text
                .push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<Event> {
        // Comments may go on for ever.
        let event = tokio::time::timeout(Duration::from_secs(10), self.next_event());
        event.await.expect("no event, and no end")
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let mut lines = block.lines();
                lines
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                let data: Value = serde_json::from_str(&data).unwrap();
                return Some(Event {
                    id: id.parse().unwrap(),
                    status: data["status"].as_str().unwrap().to_owned(),
                });
            }
        }
    }
}
