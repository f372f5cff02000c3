//! The admin API on real parts: what operators do, and bad input of every endpoint; over 500 lines because those are one table.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::{
    reconcile::Violations,
    test_shop::{START, TestShop, send},
};

pub(super) struct Desk {
    pub(super) parts: TestShop,
    pub(super) api: Router,
}

pub(super) async fn desk() -> Desk {
    desk_of(TestShop::open().await)
}

fn desk_of(parts: TestShop) -> Desk {
    let (store, ledger) = (parts.engine.store().clone(), parts.engine.ledger().clone());
    let currency = |code: &str, step_minor, most_minor| PayableCurrency {
        code: code.into(),
        step_minor,
        most_minor,
    };
    let payable = Payable {
        currencies: vec![
            currency("usd", 1, 99_999_999),
            currency("eur", 1, 99_999_999),
            currency("kwd", 10, 99_999_990),
        ],
    };
    let reconciler = Reconciler::new(store, ledger, Violations::default());
    let api = router(parts.engine.clone(), reconciler, Some(payable));
    Desk { parts, api }
}

impl Desk {
    pub(super) async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (status, document, _) = send(&self.api, request).await;
        (status.as_u16(), document)
    }
}

pub(super) fn sale(id: &str) -> Value {
    json!({
        "id": id, "starts_at_ms": START, "ends_at_ms": START + 5, "pay_within": "1m", "buyer_limit": 1, "currency": "usd",
        "skus": [{"sku": "hat", "stock": 5, "price_minor": 100}]
    })
}

#[tokio::test]
async fn a_sale_is_created_once_and_listed() {
    let desk = desk().await;
    assert_eq!(
        desk.call("POST", "/admin/v1/sales", &sale("summer").to_string())
            .await
            .0,
        201
    );
    assert_eq!(
        desk.call("POST", "/admin/v1/sales", &sale("summer").to_string())
            .await
            .0,
        200,
        "the same again"
    );
    let mut other = sale("summer");
    other["buyer_limit"] = json!(2);
    let (status, document) = desk
        .call("POST", "/admin/v1/sales", &other.to_string())
        .await;
    assert_eq!(
        (status, document["code"].as_str()),
        (409, Some("sale_exists"))
    );
    let (_, list) = desk.call("GET", "/admin/v1/sales", "").await;
    let ids: Vec<_> = list["sales"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| sale["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["spring", "summer"]);
}

/// It was answered 503 after the ledger had it: from then on nothing could be reconciled, and no backup restored.
#[tokio::test]
async fn a_level_that_the_store_cannot_keep_is_refused_before_anything_has_happened() {
    let desk = desk().await;
    let mut wanted = sale("summer");
    for (level, status) in [("replicated", 422), ("fast", 201)] {
        wanted["durability"] = json!(level);
        let body = wanted.to_string();
        let (told, document) = desk.call("POST", "/admin/v1/sales", &body).await;
        assert_eq!(told, status, "{document}");
        if status == 422 {
            let detail = document["detail"].as_str().unwrap_or_default();
            assert!(
                detail.contains("durability = \"replicated\": must be fast or durable"),
                "{detail}"
            );
            assert!(
                desk.parts
                    .engine
                    .ledger()
                    .sale(&"summer".parse().unwrap())
                    .await
                    .unwrap()
                    .is_none()
            );
        }
    }
}

/// Such sales were created and sold, and could never be paid.
#[tokio::test]
async fn a_price_that_payments_refuse_is_refused_with_the_sale() {
    let desk = desk().await;
    let mut dinar = sale("dinar");
    dinar["currency"] = json!("kwd");
    dinar["buyer_limit"] = json!(3);
    dinar["skus"][0]["price_minor"] = json!(1234);
    let create = async |sale: &Value| {
        desk.call("POST", "/admin/v1/sales", &sale.to_string())
            .await
    };
    let (status, problem) = create(&dinar).await;
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert_eq!(status, 422, "{problem}");
    let told = "skus[0].price_minor = \"1234\": must be a whole number from 10 to 33333330, a multiple of 10";
    assert!(detail.contains(told), "{detail}");

    dinar["skus"][0]["price_minor"] = json!(33_333_340);
    assert_eq!(create(&dinar).await.0, 422, "three units are too much");
    dinar["order_limit"] = json!(2);
    assert_eq!(create(&dinar).await.0, 201, "an order has two at most");
}

/// Payments may have been configured, or for other currencies, after a draft was made.
#[tokio::test]
async fn a_draft_that_nobody_could_pay_is_not_published() {
    let desk = desk().await;
    let mut draft = sale("summer");
    draft["draft"] = json!(true);
    draft["currency"] = json!("isk");
    let new: crate::sale::NewSale = serde_json::from_value(draft).unwrap();
    let ledger = desk.parts.engine.ledger();
    let draft = new.check().unwrap();
    ledger.create_sale(&draft, START).await.unwrap();
    let (status, problem) = desk
        .call("POST", "/admin/v1/sales/summer/publish", "")
        .await;
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert_eq!(status, 422, "{problem}");
    assert!(
        detail.contains("one that is paid in here: usd, eur, kwd"),
        "{detail}"
    );
}

/// Nothing is open and nothing was sold; the comparison failed, and with it that of all sales.
#[tokio::test]
async fn a_sale_that_was_never_open_has_no_findings_and_a_lost_one_is_not_taken_for_it() {
    let desk = desk().await;
    let engine = &desk.parts.engine;
    let (store, ledger) = (engine.store().clone(), engine.ledger().clone());
    let reconciler = Reconciler::new(store, ledger.clone(), Violations::default());
    let new: crate::sale::NewSale = serde_json::from_value(sale("summer")).unwrap();
    let unopened = new.check().unwrap();
    ledger.create_sale(&unopened, START).await.unwrap();
    assert_eq!(reconciler.run(&unopened).await.unwrap(), []);
    for spec in unopened.segment_specs() {
        ledger.mark_opened(&spec.id, START).await.unwrap();
    }
    assert!(reconciler.run(&unopened).await.is_err());
}

#[tokio::test]
async fn a_closed_sale_stays_closed() {
    let desk = desk().await;
    let gate = async |verb: &str| {
        desk.call("POST", &format!("/admin/v1/sales/spring/{verb}"), "")
            .await
    };
    assert_eq!(gate("pause").await.1["gate"], "paused");
    assert_eq!(gate("resume").await.1["gate"], "open");
    assert_eq!(gate("close").await.1["gate"], "closed");
    assert_eq!(gate("close").await.0, 200, "closing twice is one closing");
    assert_eq!(gate("resume").await.0, 410);
    let restock = json!({"sku": "shoe", "units": 4, "id": "r1"}).to_string();
    assert_eq!(
        desk.call("POST", "/admin/v1/sales/spring/restock", &restock)
            .await
            .0,
        410
    );
}

#[tokio::test]
async fn a_restock_is_booked_once_in_store_and_ledger() {
    let desk = desk().await;
    let body = json!({"sku": "shoe", "units": 4, "id": "r1"}).to_string();
    for added in [true, false] {
        let (status, document) = desk
            .call("POST", "/admin/v1/sales/spring/restock", &body)
            .await;
        assert_eq!((status, document["added"].as_bool()), (200, Some(added)));
    }
    assert_eq!(desk.parts.available().await, 7);
    let (_, report) = desk.call("GET", "/admin/v1/sales/spring/report", "").await;
    assert_eq!(report["skus"][0]["restocked"], 4);
    assert_eq!(
        desk.call("GET", "/admin/v1/sales/spring/reconcile", "")
            .await
            .1["ok"],
        true
    );
}

#[tokio::test]
async fn bad_input_of_every_endpoint_is_a_problem_and_changes_nothing() {
    let desk = desk().await;
    let restock = "/admin/v1/sales/spring/restock";
    let with = |key: &str, value: Value| {
        let mut sale = sale("x");
        sale[key] = value;
        sale.to_string()
    };
    let sku = |key: &str, value: Value| {
        let mut sale = sale("x");
        sale["skus"][0][key] = value;
        sale.to_string()
    };
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("POST", "/admin/v1/sales", "{".into(), 400, "invalid_body"),
        ("POST", "/admin/v1/sales", "".into(), 400, "invalid_body"),
        (
            "POST",
            "/admin/v1/sales",
            "null".into(),
            400,
            "invalid_body",
        ),
        (
            "POST",
            "/admin/v1/sales",
            with("extra", json!(1)),
            400,
            "invalid_body",
        ),
        (
            "POST",
            "/admin/v1/sales",
            with("buyer_limit", json!("1")),
            400,
            "invalid_body",
        ),
        (
            "POST",
            "/admin/v1/sales",
            "{}".into(),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            with("id", json!("a b")),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            with("buyer_limit", json!(0)),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            with("pay_within", json!("soon")),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            sku("stock", json!(-1)),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            sku("stock", json!(9_223_372_036_854_775_808_u64)),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            with("currency", json!("chf")),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            sku("price_minor", json!(0)),
            422,
            "invalid_document",
        ),
        (
            "POST",
            "/admin/v1/sales",
            sku("price_minor", json!(100_000_000)),
            422,
            "invalid_document",
        ),
        (
            "GET",
            "/admin/v1/sales/none",
            "".into(),
            404,
            "no_such_sale",
        ),
        (
            "GET",
            "/admin/v1/sales/none/report",
            "".into(),
            404,
            "no_such_sale",
        ),
        (
            "GET",
            "/admin/v1/sales/none/orders",
            "".into(),
            404,
            "no_such_sale",
        ),
        (
            "GET",
            "/admin/v1/sales/none/reconcile",
            "".into(),
            404,
            "no_such_sale",
        ),
        (
            "POST",
            "/admin/v1/sales/none/pause",
            "".into(),
            404,
            "no_such_sale",
        ),
        (
            "GET",
            "/admin/v1/sales/spring/orders?limit=0",
            "".into(),
            400,
            "invalid_request",
        ),
        (
            "GET",
            "/admin/v1/sales/spring/orders?limit=x",
            "".into(),
            400,
            "invalid_request",
        ),
        (
            "GET",
            "/admin/v1/sales/spring/orders?after=x",
            "".into(),
            400,
            "invalid_request",
        ),
        (
            "GET",
            "/admin/v1/sales/spring/orders?page=2",
            "".into(),
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/admin/v1/sales",
            "x".repeat(BODY_LIMIT + 1),
            413,
            "body_too_large",
        ),
        (
            "GET",
            "/admin/v1/sales/%ff",
            "".into(),
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/admin/v1/sales/%ff/pause",
            "".into(),
            400,
            "invalid_request",
        ),
        ("POST", restock, "[]".into(), 400, "invalid_body"),
        (
            "POST",
            restock,
            json!({"sku": "shoe", "units": 0, "id": "r"}).to_string(),
            422,
            "invalid_document",
        ),
        (
            "POST",
            restock,
            json!({"sku": "shoe", "units": -1, "id": "r"}).to_string(),
            422,
            "invalid_document",
        ),
        (
            "POST",
            restock,
            json!({"sku": "shoe", "units": u64::MAX, "id": "r"}).to_string(),
            422,
            "invalid_document",
        ),
        (
            "POST",
            restock,
            json!({"sku": "shoe", "units": 1, "id": "{}"}).to_string(),
            422,
            "invalid_document",
        ),
        (
            "POST",
            restock,
            json!({"sku": "hat", "units": 1, "id": "r"}).to_string(),
            404,
            "no_such_sku",
        ),
    ];
    for (method, path, body, status, code) in cases {
        let (answered, document) = desk.call(method, path, &body).await;
        assert_eq!(
            (answered, document["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {body}"
        );
    }
    assert_eq!(desk.parts.available().await, 3);
    assert_eq!(
        desk.call("GET", "/admin/v1/sales", "").await.1["sales"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_store_that_lost_a_sale_is_not_filled_again() {
    use crate::engine::SaleEngine;
    use stock::{
        StockStore,
        embedded::{EmbeddedStore, Options, SyncPolicy, WriteMode},
    };

    let desk = desk().await;
    let ledger = desk.parts.engine.ledger().clone();
    let empty = tempfile::tempdir().unwrap();
    let options = Options {
        folder: empty.path().into(),
        sync: SyncPolicy::Fast,
        write_mode: WriteMode::Plain,
    };
    let store: Arc<dyn StockStore> =
        Arc::new(EmbeddedStore::open(&options, Arc::new(|| START + 1)).unwrap());
    let (clock, bell) = (Arc::new(|| START + 1), Arc::default());
    let deadline = std::time::Duration::from_secs(1);
    // INV-STOCK-1: a node whose journal is gone must not sell the three units a second time.
    let engine = SaleEngine::start(store.clone(), ledger, clock, deadline, bell)
        .await
        .unwrap();
    let open = engine.catalogue().sales()[0].clone();
    let stock = open.stocks().next().unwrap();
    assert!(
        store.snapshot(&stock.segments[0].id).await.is_err(),
        "the segment must not be made anew"
    );
    let outcome = engine
        .purchase(stock, "ann".parse().unwrap(), "k".parse().unwrap(), 1, None)
        .await;
    assert!(
        matches!(outcome, crate::purchase::Outcome::Unavailable),
        "{outcome:?}"
    );
    assert!(engine.health().sales.is_err());
}

#[tokio::test]
async fn a_sale_with_carts_is_refused_where_the_store_decides_none() {
    let sale = r#"{"id":"sets","starts_at_ms":1,"ends_at_ms":9000000,"pay_within":"1m","buyer_limit":2,"currency":"usd",
        "carts":true,"skus":[{"sku":"shoe","stock":3,"price_minor":500}]}"#;
    let shop = TestShop::open_on(|store| {
        let store = testkit::faulty_store::FaultyStore::new(store);
        store.decides_carts.store(false, Ordering::SeqCst);
        store
    });
    let (status, problem) = desk_of(shop.await)
        .call("POST", "/admin/v1/sales", sale)
        .await;
    assert_eq!(
        (status, &problem["problems"][0]["field"]),
        (422, &json!("carts")),
        "{problem}"
    );
    let (status, answer) = desk().await.call("POST", "/admin/v1/sales", sale).await;
    assert_eq!(status, 201, "{answer}");
}

/// Broke: a change that the ledger had was answered "temporarily unavailable" while the store was away, so nobody knew that it was made.
#[tokio::test]
async fn a_change_that_only_the_ledger_has_is_told_as_pending_and_comes_by_itself() {
    let mut made = None;
    let shop = TestShop::open_on(|store| {
        let store = testkit::faulty_store::FaultyStore::new(store);
        made = Some(store.clone());
        store
    });
    let (desk, store) = (desk_of(shop.await), made.unwrap());
    let spring = "/admin/v1/sales/spring";
    store.is_away.store(true, Ordering::SeqCst);
    let created = sale("autumn").to_string();
    let restock = r#"{"sku":"shoe","units":4,"id":"r1"}"#;
    let calls = [
        ("/admin/v1/sales".to_owned(), created.as_str()),
        (format!("{spring}/restock"), restock),
        (format!("{spring}/pause"), ""),
    ];
    // Twice: the same again does no harm.
    for (path, body) in calls.iter().chain(&calls) {
        let (status, answer) = desk.call("POST", path, body).await;
        assert_eq!(status, 202, "{path}: {answer}");
        assert!(answer["pending"].is_string() && answer["reason"].is_string());
    }
    let conflict = sale("autumn").to_string().replace("usd", "eur");
    let (status, _) = desk.call("POST", "/admin/v1/sales", &conflict).await;
    assert_eq!(status, 409, "what is refused stays refused");
    let (_, list) = desk.call("GET", "/admin/v1/sales", "").await;
    assert_eq!(list["sales"].as_array().unwrap().len(), 2, "{list}");

    store.is_away.store(false, Ordering::SeqCst);
    desk.parts.engine.refresh().await.unwrap();
    let (_, report) = desk.call("GET", &format!("{spring}/report"), "").await;
    assert_eq!(report["skus"][0]["available"], json!(7), "{report}");
    let (_, shown) = desk.call("GET", spring, "").await;
    assert_eq!(
        (&shown["state"], &shown["warm"]),
        (&json!("paused"), &json!(true))
    );
    let (_, shown) = desk.call("GET", "/admin/v1/sales/autumn", "").await;
    assert_eq!(shown["warm"], json!(true), "{shown}");
    for (path, body) in &calls {
        let (status, answer) = desk.call("POST", path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
}
