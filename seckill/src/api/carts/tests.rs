//! Carts as buyers see them, on real parts (embedded store, SQLite ledger).

use std::time::Duration;

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::{
    api::{identity::Identity, router},
    sale::NewSale,
    test_shop::{START, TestShop, send},
};

struct Shop {
    parts: TestShop,
    api: Router,
}

/// A sale `set` of 4 shoes and 6 laces, three of a sku a buyer; and `spring`, which takes no carts.
async fn shop() -> Shop {
    let parts = TestShop::open().await;
    let line = |sku: &str, stock: u64, price: u64| json!({"sku": sku, "stock": stock, "price_minor": price});
    let skus: Vec<Value> = (0..20).map(|n| line(&format!("k{n}"), 9, 1)).collect();
    let skus = [vec![line("shoe", 4, 500), line("lace", 6, 30)], skus].concat();
    let sale = json!({
        "id": "set", "starts_at_ms": START, "ends_at_ms": START + 1000, "pay_within": "1m", "buyer_limit": 3,
        "currency": "usd", "carts": true, "skus": skus
    });
    let sale = serde_json::from_value::<NewSale>(sale).unwrap();
    parts
        .engine
        .create_sale(sale.check().unwrap())
        .await
        .unwrap();
    let identity = Identity::Header(http::HeaderName::from_static("x-buyer-id"));
    let api = router(parts.engine.clone(), identity);
    Shop { parts, api }
}

impl Shop {
    async fn call(
        &self,
        method: &str,
        path: &str,
        buyer: &str,
        key: &str,
        body: &str,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .header("x-buyer-id", buyer)
            .header("idempotency-key", key)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (status, document, _) = send(&self.api, request).await;
        (status.as_u16(), document)
    }

    async fn cart(&self, buyer: &str, key: &str, lines: &[(&str, i64)]) -> (u16, Value) {
        let line = |(sku, quantity): &(&str, i64)| json!({"sku": sku, "quantity": quantity});
        let lines: Vec<Value> = lines.iter().map(line).collect();
        let body = json!({"lines": lines}).to_string();
        self.call("POST", "/v1/sales/set/carts", buyer, key, &body)
            .await
    }

    async fn single(&self, buyer: &str, key: &str, sku: &str, quantity: i64) -> (u16, Value) {
        let body = json!({"sku": sku, "quantity": quantity}).to_string();
        self.call("POST", "/v1/sales/set/orders", buyer, key, &body)
            .await
    }

    async fn named(&self, method: &str, buyer: &str, key: &str) -> (u16, Value) {
        let path = format!("/v1/sales/set/carts?request_id={key}");
        self.call(method, &path, buyer, "unused", "").await
    }

    /// Brings everything accepted of a sku into the ledger.
    async fn settle(&self, sku: &str) {
        let engine = &self.parts.engine;
        let open = engine.catalogue().sale(&"set".parse().unwrap()).unwrap();
        let segment = &open.stock(&sku.parse().unwrap()).unwrap().segments[0].id;
        // A fast store hands out what is on its disk, a moment after the answer.
        let mut entries = Vec::new();
        while entries.is_empty() {
            let pulled = engine.store().pull(segment, "c", 100, Duration::ZERO).await;
            entries = pulled.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let orders: Vec<_> = entries
            .iter()
            .map(|one| one.order.clone().unwrap())
            .collect();
        let epoch = entries[0].epoch;
        let settled = engine.ledger().settle(segment, epoch, &orders, START);
        settled.await.unwrap();
        let positions: Vec<_> = entries.iter().map(|one| one.position).collect();
        engine.store().ack(segment, &positions).await.unwrap();
    }
}

fn code(answer: &(u16, Value)) -> (u16, &str, &str) {
    let text = |field: &str| answer.1[field].as_str().unwrap_or("");
    (answer.0, text("code"), text("sku"))
}

fn ids(document: &Value) -> Vec<&str> {
    let orders = document["orders"].as_array().unwrap();
    orders
        .iter()
        .map(|order| order["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_cart_is_created_then_replayed_then_readable() {
    let shop = shop().await;
    let (status, cart) = shop.cart("ann", "k1", &[("shoe", 1), ("lace", 2)]).await;
    assert_eq!(status, 201, "{cart}");
    assert_eq!(cart["amount_minor"], 560);
    assert_eq!(cart["orders"][1]["sku"], "lace");
    assert_eq!(cart["orders"][1]["quantity"], 2);
    // The order of the lines is not part of what was asked for.
    let (status, again) = shop.cart("ann", "k1", &[("lace", 2), ("shoe", 1)]).await;
    assert_eq!(status, 200);
    let (mut first, mut second) = (ids(&cart), ids(&again));
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, second);
    let (status, read) = shop.named("GET", "ann", "k1").await;
    assert_eq!((status, ids(&read)), (200, ids(&cart)));
    assert_eq!(shop.named("GET", "bob", "k1").await.0, 404);
    // Half of it in the ledger, half on its way.
    shop.settle("lace").await;
    let (_, read) = shop.named("GET", "ann", "k1").await;
    assert_eq!(ids(&read), ids(&cart));
    let path = format!("/v1/orders/{}", ids(&cart)[0]);
    assert_eq!(shop.call("GET", &path, "ann", "x", "").await.0, 200);
}

#[tokio::test]
async fn lines_of_one_sku_are_summed_before_anything_is_checked() {
    let shop = shop().await;
    let cart = shop
        .cart("ann", "k1", &[("shoe", 2), ("lace", 1), ("shoe", 2)])
        .await;
    assert_eq!(code(&cart), (409, "buyer_limit", "shoe"), "2 + 2 is over 3");
    let (status, cart) = shop.cart("ann", "k1", &[("shoe", 1), ("shoe", 2)]).await;
    assert_eq!(status, 201, "{cart}");
    assert_eq!(cart["orders"].as_array().unwrap().len(), 1);
    assert_eq!(cart["orders"][0]["quantity"], 3);
    assert_eq!(shop.cart("ann", "k1", &[("shoe", 3)]).await.0, 200);
}

#[tokio::test]
async fn a_refusal_names_its_line_and_takes_nothing() {
    let shop = shop().await;
    let refused = shop.cart("ann", "k1", &[("shoe", 1), ("lace", 4)]).await;
    assert_eq!(code(&refused), (409, "buyer_limit", "lace"));
    for (buyer, shoes) in [("bob", 3), ("cat", 1)] {
        assert_eq!(shop.single(buyer, "k", "shoe", shoes).await.0, 201);
    }
    for _ in 0..2 {
        let refused = shop.cart("ann", "k1", &[("lace", 1), ("shoe", 1)]).await;
        assert_eq!(
            code(&refused),
            (409, "sold_out", "shoe"),
            "then from memory"
        );
    }
    let refused = shop.cart("ann", "k1", &[("lace", 1), ("hat", 1)]).await;
    assert_eq!(code(&refused).1, "no_such_sku");
    // The units of the other lines are still there: the laces sell to the last.
    for (buyer, laces) in [("ann", 3), ("bob", 3)] {
        assert_eq!(shop.single(buyer, "l", "lace", laces).await.0, 201);
    }
}

#[tokio::test]
async fn carts_and_single_purchases_share_limits_and_keys() {
    let shop = shop().await;
    assert_eq!(shop.single("ann", "k1", "shoe", 2).await.0, 201);
    let over = shop.cart("ann", "k2", &[("shoe", 2), ("lace", 1)]).await;
    assert_eq!(code(&over), (409, "buyer_limit", "shoe"));
    assert_eq!(
        shop.cart("ann", "k2", &[("shoe", 1), ("lace", 1)]).await.0,
        201
    );
    let reused = [
        shop.cart("ann", "k1", &[("shoe", 1), ("lace", 1)]).await,
        shop.cart("ann", "k2", &[("shoe", 1), ("lace", 2)]).await,
        shop.cart("ann", "k2", &[("k1", 1)]).await,
        shop.cart("ann", "k1", &[("shoe", 2)]).await,
        shop.single("ann", "k2", "lace", 1).await,
    ];
    for answer in &reused {
        assert_eq!(code(answer).1, "key_reused", "{answer:?}");
    }
    assert_eq!(
        shop.named("GET", "ann", "k1").await.0,
        404,
        "that is no cart"
    );
}

#[tokio::test]
async fn a_cart_is_cancelled_whole_or_by_its_orders() {
    let shop = shop().await;
    let lines = [("shoe", 1), ("lace", 1)];
    let (_, cart) = shop.cart("ann", "k1", &lines).await;
    for sku in ["shoe", "lace"] {
        shop.settle(sku).await;
    }
    // One line alone, as any order.
    let path = format!("/v1/orders/{}", ids(&cart)[1]);
    assert_eq!(shop.call("DELETE", &path, "ann", "x", "").await.0, 200);
    assert_eq!(shop.named("DELETE", "bob", "k1").await.0, 404);
    for _ in 0..2 {
        let (status, cancelled) = shop.named("DELETE", "ann", "k1").await;
        assert_eq!(status, 200, "{cancelled}");
        let orders = cancelled["orders"].as_array().unwrap();
        assert!(orders.len() == 2 && orders.iter().all(|one| one["status"] == "released"));
    }
    // A late retry finds what became of it, and buys nothing.
    let (status, again) = shop.cart("ann", "k1", &lines).await;
    assert_eq!((status, ids(&again)), (200, ids(&cart)));
}

#[tokio::test]
async fn a_cart_with_a_paid_line_is_not_cancelled() {
    let shop = shop().await;
    let (_, cart) = shop.cart("ann", "k1", &[("shoe", 1), ("lace", 1)]).await;
    for sku in ["shoe", "lace"] {
        shop.settle(sku).await;
    }
    let ledger = shop.parts.engine.ledger();
    let mut tx = ledger.pool().begin().await.unwrap();
    let lace = ids(&cart)[1].parse().unwrap();
    ledger.hold(&mut tx, lace, "pi_1", START + 1).await.unwrap();
    tx.commit().await.unwrap();
    let refused = shop.named("DELETE", "ann", "k1").await;
    assert_eq!(code(&refused), (409, "not_cancellable", "lace"));
    let (_, read) = shop.named("GET", "ann", "k1").await;
    assert_eq!(
        read["orders"][0]["status"], "reserved",
        "nothing was given back"
    );
}

#[tokio::test]
async fn a_sale_without_carts_says_so() {
    let shop = shop().await;
    let path = "/v1/sales/spring/carts";
    let body = json!({"lines": [{"sku": "shoe"}]}).to_string();
    let refused = shop.call("POST", path, "ann", "k", &body).await;
    assert_eq!(code(&refused), (409, "no_carts", ""));
    let path = format!("{path}?request_id=k");
    assert_eq!(
        code(&shop.call("GET", &path, "ann", "k", "").await).1,
        "no_carts"
    );
}

#[tokio::test]
async fn bad_input_of_a_cart_is_a_problem_and_changes_nothing() {
    let shop = shop().await;
    let many: Vec<_> = (0..17).map(|n| json!({"sku": format!("k{n}")})).collect();
    let cases = [
        (json!({}), 400, "invalid_body"),
        (json!({"lines": []}), 400, "invalid_body"),
        (json!({"lines": many}), 400, "invalid_body"),
        (
            json!({"lines": [{"sku": "shoe", "colour": 1}]}),
            400,
            "invalid_body",
        ),
        (
            json!({"lines": [{"sku": "shoe", "quantity": 0}]}),
            400,
            "invalid_quantity",
        ),
        (
            json!({"lines": [{"sku": "shoe", "quantity": -1}]}),
            400,
            "invalid_quantity",
        ),
        (
            json!({"lines": [{"sku": "shoe", "quantity": 1_000_000}, {"sku": "shoe"}]}),
            400,
            "invalid_quantity",
        ),
        (
            json!({"lines": [{"sku": "shoe"}, {"sku": "hat"}]}),
            404,
            "no_such_sku",
        ),
    ];
    for (body, status, expected) in cases {
        let answer = shop
            .call("POST", "/v1/sales/set/carts", "ann", "k", &body.to_string())
            .await;
        assert_eq!((answer.0, code(&answer).1), (status, expected), "{body}");
    }
    let sixteen: Vec<(String, i64)> = (0..16).map(|n| (format!("k{n}"), 1)).collect();
    let sixteen: Vec<_> = sixteen
        .iter()
        .map(|(sku, units)| (sku.as_str(), *units))
        .collect();
    assert_eq!(shop.cart("ann", "k", &sixteen).await.0, 201);
    let no_key = Request::post("/v1/sales/set/carts")
        .header("x-buyer-id", "ann")
        .header("content-type", "application/json")
        .body(Body::from(json!({"lines": [{"sku": "shoe"}]}).to_string()))
        .unwrap();
    let (status, document, _) = send(&shop.api, no_key).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(document["code"], "missing_idempotency_key");
}

/// It belongs to the purchase, so each order of the cart has it, and so it is part of what the key stands for.
#[tokio::test]
async fn metadata_of_a_cart_is_on_each_of_its_orders() {
    let shop = shop().await;
    let send = async |metadata: Value| {
        let lines = json!([{"sku": "shoe"}, {"sku": "lace", "quantity": 2}]);
        let body = json!({"lines": lines, "metadata": metadata}).to_string();
        shop.call("POST", "/v1/sales/set/carts", "ann", "k", &body)
            .await
    };
    let sent = json!({"campaign": "spring sale"});
    let all_have_it = |cart: &Value| {
        let orders = cart["orders"].as_array().unwrap();
        orders.len() == 2 && orders.iter().all(|order| order["metadata"] == sent)
    };
    let (status, cart) = send(sent.clone()).await;
    assert!(status == 201 && all_have_it(&cart), "{cart}");
    let (status, again) = send(sent.clone()).await;
    assert!(status == 200 && all_have_it(&again), "{again}");
    let (status, refused) = send(json!({})).await;
    assert_eq!((status, &refused["code"]), (422, &json!("key_reused")));
    for sku in ["shoe", "lace"] {
        shop.settle(sku).await;
        let (_, found) = shop.named("GET", "ann", "k").await;
        assert!(all_have_it(&found), "{found}");
    }
    let (status, refused) = shop
        .call(
            "POST",
            "/v1/sales/set/carts",
            "bob",
            "k",
            r#"{"lines":[{"sku":"shoe"}],"metadata":{"a":1}}"#,
        )
        .await;
    assert_eq!(
        (status, &refused["code"]),
        (400, &json!("invalid_metadata"))
    );
}

/// A purchase of one sku with metadata is no cart.
#[tokio::test]
async fn a_single_purchase_with_metadata_is_no_line_of_a_cart() {
    let shop = shop().await;
    let body = r#"{"sku":"shoe","metadata":{"a":"1"}}"#;
    let (status, _) = shop
        .call("POST", "/v1/sales/set/orders", "ann", "k", body)
        .await;
    assert_eq!(status, 201);
    assert_eq!(shop.named("GET", "ann", "k").await.0, 404);
    shop.settle("shoe").await;
    assert_eq!(shop.named("GET", "ann", "k").await.0, 404);
}
