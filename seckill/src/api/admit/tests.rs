//! Who is let through, and what those get who are not.

use std::sync::atomic::Ordering;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    api::tests::{Shop, post, shop},
    ids::{BuyerId, SaleId},
    ledger::ListName,
    test_shop::START,
};

impl Shop {
    /// Creates a sale `vip` like `spring`, with these fields beside.
    pub(crate) async fn vip(&self, fields: Value) {
        let mut sale = json!({
            "id": "vip", "starts_at_ms": START, "ends_at_ms": START + 1000, "pay_within": "1m", "buyer_limit": 2,
            "currency": "usd", "skus": [{"sku": "shoe", "stock": 9, "price_minor": 500}]
        });
        for (field, value) in fields.as_object().unwrap() {
            sale[field] = value.clone();
        }
        let new: crate::sale::NewSale = serde_json::from_value(sale).unwrap();
        let sale = new.check().unwrap();
        self.parts.engine.create_sale(sale).await.unwrap();
    }

    async fn list(&self, list: ListName, add: &[&str]) {
        let add: Vec<_> = add.iter().map(|b| BuyerId::try_new(b).unwrap()).collect();
        let sale = SaleId::try_new("vip").unwrap();
        let engine = &self.parts.engine;
        engine.change_list(&sale, list, &add, &[]).await.unwrap();
    }

    async fn ask(&self, buyer: &str, key: &str, quantity: u32) -> (u16, Value, bool) {
        let body = json!({"sku": "shoe", "quantity": quantity}).to_string();
        let (status, document, response) =
            self.send(post("vip", Some(buyer), Some(key), &body)).await;
        let is_replay = response.headers().contains_key("idempotent-replayed");
        (status.as_u16(), document, is_replay)
    }
}

#[tokio::test]
async fn a_sale_for_invited_buyers_refuses_all_others() {
    let shop = shop().await;
    shop.vip(json!({"admission": "allow_list"})).await;
    let (status, refused, _) = shop.ask("ann", "k1", 1).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (403, Some("not_allowed"))
    );
    shop.list(ListName::Allow, &["ann"]).await;
    assert_eq!(shop.ask("ann", "k1", 1).await.0, 201);
    assert_eq!(shop.ask("bob", "k1", 1).await.0, 403);
}

#[tokio::test]
async fn a_buyer_blocked_later_still_gets_his_order() {
    let shop = shop().await;
    shop.vip(json!({})).await;
    let (status, order, _) = shop.ask("ann", "k1", 1).await;
    assert_eq!(status, 201);
    shop.list(ListName::Block, &["ann", "bob"]).await;
    let (status, again, is_replay) = shop.ask("ann", "k1", 1).await;
    assert_eq!((status, &again["id"], is_replay), (200, &order["id"], true));
    let (status, other, _) = shop.ask("ann", "k1", 2).await;
    assert_eq!((status, other["code"].as_str()), (422, Some("key_reused")));
    let body = r#"{"sku": "shoe", "metadata": {"a": "1"}}"#;
    let (status, other, _) = shop.send(post("vip", Some("ann"), Some("k1"), body)).await;
    assert_eq!(
        (status.as_u16(), &other["code"]),
        (422, &json!("key_reused"))
    );
    for (buyer, key) in [("ann", "k2"), ("bob", "k1")] {
        let (status, refused, _) = shop.ask(buyer, key, 1).await;
        assert_eq!(
            (status, refused["code"].as_str()),
            (403, Some("blocked")),
            "{buyer}"
        );
    }
    // The refusal reads and never buys: also not when the window is over.
    shop.parts.now.store(START + 1000, Ordering::Relaxed);
    assert_eq!(shop.ask("ann", "k1", 1).await.0, 200);
    let (status, _) = shop.buy("ann", "k9", 1).await;
    assert_eq!(status, StatusCode::GONE, "the other sale has no such list");
}
