//! Drafts, publishing and moved windows, from the operator's request to the stock store.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Request;
use stock::{Purchase, SegmentSpec, Verdict};

use super::*;
use crate::{
    admin::tests::{Desk, desk, sale},
    ids::SkuId,
    test_shop::{START, send},
};

impl Desk {
    /// A change that names the version it was made from.
    async fn change_of(
        &self,
        method: &str,
        path: &str,
        version: u64,
        body: &Value,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("if-match", format!("\"{version}\""))
            .body(Body::from(body.to_string()))
            .unwrap();
        let (status, document, _) = send(&self.api, request).await;
        (status.as_u16(), document)
    }

    async fn draft(&self) {
        let mut draft = sale("summer");
        draft["draft"] = json!(true);
        draft["starts_at_ms"] = json!(START + 60_000);
        draft["ends_at_ms"] = json!(START + 120_000);
        let (status, made) = self
            .call("POST", "/admin/v1/sales", &draft.to_string())
            .await;
        assert_eq!((status, made["state"].as_str()), (201, Some("draft")));
    }

    /// The rules that the store goes by.
    async fn in_store(&self, sale: &str, sku: &str) -> Option<SegmentSpec> {
        let kept = crate::admin::extract::stored_sale(&self.parts.engine, sale)
            .await
            .unwrap();
        let segment = kept.segments_of(&SkuId::try_new(sku).unwrap()).remove(0);
        let found = self.parts.engine.store().snapshot(&segment).await;
        found.ok().map(|snapshot| snapshot.spec)
    }
}

const SUMMER: &str = "/admin/v1/sales/summer";

#[tokio::test]
async fn a_draft_is_the_operators_alone_until_it_is_published() {
    let desk = desk().await;
    desk.draft().await;
    let id = SaleId::try_new("summer").unwrap();
    assert!(desk.in_store("summer", "hat").await.is_none());
    desk.parts.engine.refresh().await.unwrap();
    assert!(desk.parts.engine.catalogue().sale(&id).is_none());
    assert!(!desk.parts.engine.is_warm(&id));
    let list = desk.call("GET", "/admin/v1/sales", "").await.1;
    assert_eq!(list["sales"][1]["state"], "draft");
    let (status, refused) = desk.call("POST", &format!("{SUMMER}/pause"), "").await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("not_editable"))
    );

    for _ in 0..2 {
        let (status, published) = desk.call("POST", &format!("{SUMMER}/publish"), "").await;
        assert_eq!(
            (status, published["state"].as_str()),
            (200, Some("scheduled"))
        );
        assert_eq!(
            published["warm"], true,
            "its segments were opened on the way"
        );
        assert_eq!(published["version"], 2, "publishing again changes nothing");
    }
    assert!(desk.parts.engine.catalogue().sale(&id).is_some());
    assert!(desk.in_store("summer", "hat").await.is_some());
}

#[tokio::test]
async fn a_draft_is_edited_by_whoever_saw_its_last_version() {
    let desk = desk().await;
    desk.draft().await;
    let (status, refused) = desk.call("PATCH", SUMMER, r#"{"buyer_limit": 2}"#).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (428, Some("version_required"))
    );
    let limit = json!({"buyer_limit": 3, "skus": [{"sku": "cap", "stock": 9, "price_minor": 7}]});
    let (status, edited) = desk.change_of("PATCH", SUMMER, 1, &limit).await;
    assert_eq!((status, edited["version"].as_u64()), (200, Some(2)));
    assert_eq!(
        (&edited["buyer_limit"], &edited["skus"][0]["sku"]),
        (&json!(3), &json!("cap"))
    );
    let (status, refused) = desk.change_of("PATCH", SUMMER, 1, &limit).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (412, Some("version_conflict"))
    );
    let (status, refused) = desk.change_of("PUT", SUMMER, 1, &sale("summer")).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (412, Some("version_conflict"))
    );

    let (status, replaced) = desk.change_of("PUT", SUMMER, 2, &sale("summer")).await;
    assert_eq!((status, replaced["state"].as_str()), (200, Some("draft")));
    assert_eq!(
        (&replaced["buyer_limit"], &replaced["skus"][0]["sku"]),
        (&json!(1), &json!("hat"))
    );

    let cases = [
        ("PATCH", json!({"buyer_limit": 0}), 422, "invalid_document"),
        ("PATCH", json!({"colour": "red"}), 400, "invalid_body"),
        ("PATCH", json!({"id": "other"}), 422, "invalid_document"),
        ("PATCH", json!({"currency": "chf"}), 422, "invalid_document"),
        ("PATCH", json!([]), 400, "invalid_body"),
        ("PUT", json!({}), 422, "invalid_document"),
    ];
    for (method, body, status, code) in cases {
        let (answered, refused) = desk.change_of(method, SUMMER, 3, &body).await;
        assert_eq!(
            (answered, refused["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
    }
    assert_eq!(desk.call("GET", SUMMER, "").await.1["version"], 3);
}

#[tokio::test]
async fn a_draft_whose_window_is_over_is_not_published() {
    let desk = desk().await;
    desk.draft().await;
    desk.parts.now.store(START + 120_000, Ordering::Relaxed);
    let (status, refused) = desk.call("POST", &format!("{SUMMER}/publish"), "").await;
    assert_eq!((status, refused["code"].as_str()), (410, Some("ended")));
    assert_eq!(
        desk.call("POST", &format!("{SUMMER}/close"), "").await.0,
        200
    );
    assert_eq!(desk.call("GET", SUMMER, "").await.1["state"], "ended");
}

#[tokio::test]
async fn a_published_window_is_moved_in_the_store() {
    let desk = desk().await;
    desk.draft().await;
    desk.call("POST", &format!("{SUMMER}/publish"), "").await;
    let later = json!({"starts_at_ms": START + 90_000, "ends_at_ms": START + 150_000});
    let (status, moved) = desk.change_of("PATCH", SUMMER, 2, &later).await;
    assert_eq!((status, moved["version"].as_u64()), (200, Some(3)));
    let spec = desk.in_store("summer", "hat").await.unwrap();
    assert_eq!(
        (spec.starts_at_ms, spec.ends_at_ms),
        (START + 90_000, START + 150_000)
    );

    let (status, refused) = desk
        .change_of("PATCH", SUMMER, 3, &json!({"buyer_limit": 9}))
        .await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("not_editable"))
    );
    desk.parts.now.store(START + 90_000, Ordering::Relaxed);
    let again = json!({"starts_at_ms": START + 95_000});
    let (status, refused) = desk.change_of("PATCH", SUMMER, 3, &again).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("not_editable"))
    );
    let shorter = json!({"ends_at_ms": START + 100_000});
    assert_eq!(desk.change_of("PATCH", SUMMER, 3, &shorter).await.0, 200);
    let spec = desk.in_store("summer", "hat").await.unwrap();
    assert_eq!(spec.ends_at_ms, START + 100_000);

    // The store decides by the new end (INV-WINDOW-1).
    desk.parts.now.store(START + 100_000, Ordering::Relaxed);
    let purchase = Purchase {
        order: "ord_00000000000000000000000001".parse().unwrap(),
        buyer: "ann".parse().unwrap(),
        request: "k".parse().unwrap(),
        fingerprint: 1,
        quantity: 1,
        metadata: None,
    };
    let verdicts = desk
        .parts
        .engine
        .store()
        .buy_many(&spec.id, 1, vec![purchase])
        .await;
    assert_eq!(verdicts.unwrap(), [Verdict::Ended]);
    let extended = json!({"ends_at_ms": START + 200_000});
    assert_eq!(desk.change_of("PATCH", SUMMER, 4, &extended).await.0, 410);
}

#[tokio::test]
async fn a_store_that_goes_by_an_older_window_is_put_right() {
    let desk = desk().await;
    let before = desk.in_store("spring", "shoe").await.unwrap();
    let other = SegmentSpec {
        ends_at_ms: before.ends_at_ms + 777,
        ..before.clone()
    };
    desk.parts.engine.store().open(&other).await.unwrap();
    desk.parts.engine.refresh().await.unwrap();
    assert_eq!(desk.in_store("spring", "shoe").await.unwrap(), before);
}
