//! The sale API on real parts (embedded store, SQLite ledger): answers, and bad input of every endpoint.

mod retries;

use std::{sync::atomic::Ordering, time::Duration};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::{
    store::Gate,
    test_shop::{Answer, START, TestShop},
};

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
async fn bad_input_of_the_purchase_is_a_problem_and_changes_nothing() {
    let shop = shop().await;
    let ok = json!({"sku": "shoe", "quantity": 1}).to_string();
    let long = "x".repeat(256);
    let big = format!("{{\"sku\":\"{}\"}}", "x".repeat(5000));
    let spaced = "a b";
    type Case<'a> = (
        &'a str,
        Option<&'a str>,
        Option<&'a str>,
        &'a str,
        u16,
        &'a str,
    );
    let cases: Vec<Case<'_>> = vec![
        ("spring", None, Some("k"), &ok, 401, "unauthenticated"),
        ("spring", Some(""), Some("k"), &ok, 400, "invalid_request"),
        (
            "spring",
            Some(spaced),
            Some("k"),
            &ok,
            400,
            "invalid_request",
        ),
        (
            "spring",
            Some("ann"),
            None,
            &ok,
            400,
            "missing_idempotency_key",
        ),
        (
            "spring",
            Some("ann"),
            Some(&long),
            &ok,
            400,
            "invalid_request",
        ),
        ("spring", Some("ann"), Some("k"), "{", 400, "invalid_body"),
        ("spring", Some("ann"), Some("k"), "", 400, "invalid_body"),
        ("spring", Some("ann"), Some("k"), "[]", 400, "invalid_body"),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"["shoe", 1]"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            "\u{0}",
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":5}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":"1"}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":1.5}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","colour":"red"}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":0}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":-1}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":9223372036854775808}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":4294967297}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"hat"}"#,
            404,
            "no_such_sku",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"sh oe"}"#,
            404,
            "no_such_sku",
        ),
        ("summer", Some("ann"), Some("k"), &ok, 404, "no_such_sale"),
        ("%7Bx%7D", Some("ann"), Some("k"), &ok, 404, "no_such_sale"),
        (
            "spring",
            Some("ann"),
            Some("k"),
            &big,
            413,
            "body_too_large",
        ),
    ];
    for (sale, buyer, key, body, status, code) in cases {
        let (answered, document, response) = shop.send(post(sale, buyer, key, body)).await;
        assert_eq!(
            (answered.as_u16(), document["code"].as_str()),
            (status, Some(code)),
            "{sale} {buyer:?} {key:?} {body}"
        );
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert!(
            document["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
    let mut form = post("spring", Some("ann"), Some("k"), &ok);
    form.headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(shop.send(form).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut twice = post("spring", Some("ann"), Some("k"), &ok);
    twice
        .headers_mut()
        .append("x-buyer-id", "bob".parse().unwrap());
    assert_eq!(shop.send(twice).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        shop.parts.available().await,
        3,
        "nothing was changed by any of it"
    );
}

#[tokio::test]
async fn bad_input_of_the_other_paths_is_a_problem() {
    let shop = shop().await;
    let cases = [
        ("/v1/orders/x", 404, "no_such_order"),
        (
            "/v1/orders/ord_00000000000000000000000000",
            404,
            "no_such_order",
        ),
        ("/v1/sales/none", 404, "no_such_sale"),
        ("/v1/sales/spring/orders", 400, "invalid_request"),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=a%20b",
            400,
            "invalid_request",
        ),
        (
            "/v1/sales/spring/orders?sku=hat&request_id=k",
            404,
            "no_such_sku",
        ),
        (
            "/v1/sales/none/orders?sku=shoe&request_id=k",
            404,
            "no_such_sale",
        ),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=k&wait=1h",
            400,
            "invalid_request",
        ),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=k&wait=20",
            400,
            "invalid_request",
        ),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=k&status=lost",
            400,
            "invalid_request",
        ),
        ("/v1/orders/x/events", 404, "no_such_order"),
        ("/v1/elsewhere", 404, "not_found"),
        ("/v1/sales/%ff", 400, "invalid_request"),
        ("/v1/orders/%ff", 400, "invalid_request"),
    ];
    for (path, status, code) in cases {
        let (answered, document, _) = shop.send(get(path, "ann")).await;
        assert_eq!(
            (answered.as_u16(), document["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let anonymous = Request::get("/v1/orders/x").body(Body::empty()).unwrap();
    assert_eq!(shop.send(anonymous).await.0, StatusCode::UNAUTHORIZED);
    let put = Request::builder()
        .method(Method::PUT)
        .uri("/v1/sales/spring")
        .body(Body::empty())
        .unwrap();
    assert_eq!(shop.send(put).await.1["code"], "method_not_allowed");
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
