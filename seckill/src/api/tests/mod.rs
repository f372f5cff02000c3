//! The sale API on real parts (embedded store, SQLite ledger): answers, refusals and cancelling.

mod bad_input;
mod metadata;
mod retries;

use std::{sync::atomic::Ordering, time::Duration};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use stock::Gate;

use super::*;
use crate::test_shop::{Answer, START, TestShop};

pub(super) struct Shop {
    pub(super) parts: TestShop,
    pub(super) api: Router,
}

pub(super) async fn shop() -> Shop {
    let parts = TestShop::open().await;
    let api = router(
        parts.engine.clone(),
        Identity::Header(http::HeaderName::from_static("x-buyer-id")),
    );
    Shop { parts, api }
}

impl Shop {
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        crate::test_shop::send(&self.api, request).await
    }

    /// Takes what was accepted into the ledger.
    async fn settle(&self) {
        let sale = self.parts.engine.catalogue().sales()[0].clone();
        let segment = sale.segments().next().unwrap().id.clone();
        // A store that syncs a moment after its answer hands out what is on the disk, and nothing sooner.
        let entries = loop {
            let store = self.parts.engine.store();
            let pulled = store.pull(&segment, "c", 10, Duration::ZERO).await.unwrap();
            if !pulled.is_empty() {
                break pulled;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let orders: Vec<_> = entries
            .into_iter()
            .map(|entry| entry.order.unwrap())
            .collect();
        self.parts
            .engine
            .ledger()
            .settle(&segment, 1, &orders, START)
            .await
            .unwrap();
    }

    pub(super) async fn buy(&self, buyer: &str, key: &str, quantity: u64) -> (StatusCode, Value) {
        let body = json!({"sku": "shoe", "quantity": quantity}).to_string();
        let (status, document, _) = self
            .send(post("spring", Some(buyer), Some(key), &body))
            .await;
        (status, document)
    }
}

pub(super) fn post(
    sale: &str,
    buyer: Option<&str>,
    key: Option<&str>,
    body: &str,
) -> Request<Body> {
    let mut request = Request::post(format!("/v1/sales/{sale}/orders"))
        .header("content-type", "application/json");
    if let Some(buyer) = buyer {
        request = request.header("x-buyer-id", buyer);
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

pub(super) fn get(path: &str, buyer: &str) -> Request<Body> {
    Request::get(path)
        .header("x-buyer-id", buyer)
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_purchase_is_created_then_replayed_then_readable() {
    let shop = shop().await;
    let (status, order) = shop.buy("ann", "k1", 2).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (order["status"].as_str(), order["amount_minor"].as_i64()),
        (Some("reserved"), Some(1000))
    );
    let body = json!({"sku": "shoe", "quantity": 2}).to_string();
    let (status, replay, response) = shop
        .send(post("spring", Some("ann"), Some("k1"), &body))
        .await;
    assert_eq!((status, &replay["id"]), (StatusCode::OK, &order["id"]));
    assert_eq!(response.headers()["idempotent-replayed"], "true");
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    assert_eq!(shop.send(get(&path, "ann")).await.1["id"], order["id"]);
    let poll = "/v1/sales/spring/orders?sku=shoe&request_id=k1";
    assert_eq!(shop.send(get(poll, "ann")).await.1["id"], order["id"]);
    assert_eq!(
        shop.send(get(&path, "bob")).await.0,
        StatusCode::NOT_FOUND,
        "somebody else's order"
    );
    assert_eq!(shop.send(get(poll, "bob")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_refusal_has_its_code() {
    let shop = shop().await;
    let code = |answer: (StatusCode, Value)| {
        (
            answer.0.as_u16(),
            answer.1["code"].as_str().unwrap_or("").to_owned(),
        )
    };
    assert_eq!(shop.buy("ann", "k1", 2).await.0, StatusCode::CREATED);
    assert_eq!(
        code(shop.buy("ann", "k1", 1).await),
        (422, "key_reused".into())
    );
    assert_eq!(
        code(shop.buy("ann", "k2", 1).await),
        (409, "buyer_limit".into())
    );
    assert_eq!(
        code(shop.buy("bob", "k1", 2).await),
        (409, "sold_out".into())
    );
    assert_eq!(shop.buy("bob", "k2", 1).await.0, StatusCode::CREATED);
    assert_eq!(
        code(shop.buy("cat", "k1", 1).await),
        (409, "sold_out".into())
    );
    shop.parts.now.store(START + 1000, Ordering::Relaxed);
    assert_eq!(
        code(shop.buy("dan", "k1", 1).await),
        (409, "sold_out".into()),
        "from memory, whatever the window"
    );
    let sale = shop.parts.engine.catalogue().sales()[0].sale.id.clone();
    for (gate, expected) in [
        (Gate::Paused, (503, "paused")),
        (Gate::Closed, (410, "ended")),
    ] {
        let fresh = self::shop().await;
        fresh.parts.engine.set_gate(&sale, gate).await.unwrap();
        let answer = code(fresh.buy("ann", "k1", 1).await);
        assert_eq!((answer.0, answer.1.as_str()), expected);
    }
}

#[tokio::test]
async fn before_the_window_the_answer_says_when_to_come_back() {
    let shop = shop().await;
    let body = json!({"sku": "shoe"}).to_string();
    shop.parts.now.store(START - 2500, Ordering::Relaxed);
    let early = post("spring", Some("ann"), Some("k"), &body);
    let (status, document, response) = shop.send(early).await;
    assert_eq!(
        (status.as_u16(), document["code"].as_str()),
        (409, Some("not_started"))
    );
    assert_eq!(response.headers()["retry-after"], "3", "2.5 s, rounded up");
    shop.parts.now.store(START, Ordering::Relaxed);
    let in_time = post("spring", Some("ann"), Some("k"), &body);
    let (status, _, response) = shop.send(in_time).await;
    assert_eq!(
        status,
        StatusCode::CREATED,
        "the first instant belongs to the window"
    );
    assert!(response.headers().contains_key("location"));
}

#[tokio::test]
async fn a_draft_is_invisible_and_an_order_limit_names_itself() {
    let shop = shop().await;
    let make = async |id: &str, draft: bool| {
        let sale = json!({
            "id": id, "starts_at_ms": START, "ends_at_ms": START + 1000, "pay_within": "1m", "buyer_limit": 3,
            "order_limit": 2, "draft": draft, "currency": "usd", "skus": [{"sku": "shoe", "stock": 9, "price_minor": 500}]
        });
        let new: crate::sale::NewSale = serde_json::from_value(sale).unwrap();
        let sale = new.check().unwrap();
        shop.parts.engine.create_sale(sale).await.unwrap();
    };
    make("hidden", true).await;
    make("seen", false).await;
    let ask = async |sale: &str, quantity: u64| {
        let body = json!({"sku": "shoe", "quantity": quantity}).to_string();
        let (status, document, _) = shop.send(post(sale, Some("ann"), Some("k"), &body)).await;
        (status.as_u16(), document)
    };
    assert_eq!(shop.send(get("/v1/sales/hidden", "ann")).await.0, 404);
    assert_eq!(ask("hidden", 1).await.1["code"], "no_such_sale");
    assert_eq!(
        shop.send(get("/v1/sales/seen", "ann")).await.1["order_limit"],
        2
    );
    let (status, refused) = ask("seen", 3).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (400, Some("order_limit"))
    );
    assert!(refused["detail"].as_str().unwrap().contains("at most 2"));
    assert_eq!(ask("seen", 2).await.0, 201);
}

#[tokio::test]
async fn an_order_is_cancelled_once_it_is_in_the_ledger() {
    let shop = shop().await;
    let (_, order) = shop.buy("ann", "k1", 1).await;
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    let delete = |buyer: &str| {
        Request::delete(&path)
            .header("x-buyer-id", buyer)
            .body(Body::empty())
            .unwrap()
    };
    assert_eq!(shop.send(delete("bob")).await.0, StatusCode::NOT_FOUND);
    shop.settle().await;
    let (status, document, _) = shop.send(delete("ann")).await;
    assert_eq!(
        (status, document["status"].as_str()),
        (StatusCode::OK, Some("released"))
    );
    assert_eq!(
        shop.send(delete("ann")).await.0,
        StatusCode::OK,
        "cancelling twice is one cancellation"
    );
}

#[test]
fn only_purchases_wait_for_no_sql() {
    let is = |method: &str, path: &str| super::is_purchase(&method.parse().unwrap(), path);
    assert!(is("POST", "/v1/sales/spring/orders"));
    assert!(is("POST", "/v1/sales/spring/carts"));
    for (method, path) in [
        ("GET", "/v1/sales/spring/orders"),
        ("DELETE", "/v1/sales/spring/carts"),
        ("POST", "/v1/sales/spring/entries"),
        ("POST", "/v1/orders/o1/code"),
        ("POST", "/v1/sales/spring/orders/"),
        ("POST", "/v1/sales//orders"),
        ("POST", "/v1/sales/orders"),
        ("POST", "/"),
    ] {
        assert!(!is(method, path), "{method} {path}");
    }
}
