//! A lottery as buyers see it, from the first entry to the purchase.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Request;

use super::*;
use crate::{
    api::tests::{Shop, get, post, shop},
    lottery::{Seed, verify},
    test_shop::START,
};

const CLOSES: u64 = START + 500;

impl Shop {
    async fn lottery(&self) {
        self.parts.now.store(START - 10, Ordering::Relaxed);
        self.vip(json!({
            "starts_at_ms": CLOSES, "ends_at_ms": START + 100_000, "admission": "lottery", "buyer_limit": 1,
            "lottery": {"closes_at_ms": CLOSES, "winners": 2, "commitment": Seed::new([7; 32]).commitment(),
                "beacon_source": "drand quicknet round 4242"}
        }))
        .await;
    }

    async fn enter(&self, buyer: &str) -> (u16, Value) {
        let request = Request::post("/v1/sales/vip/entries")
            .header("x-buyer-id", buyer)
            .body(Body::empty())
            .unwrap();
        let (status, document, _) = self.send(request).await;
        (status.as_u16(), document)
    }

    async fn see(&self, path: &str, buyer: &str) -> (u16, Value) {
        let (status, document, _) = self.send(get(path, buyer)).await;
        (status.as_u16(), document)
    }
}

#[tokio::test]
async fn winners_buy_losers_do_not_and_everybody_can_check() {
    let shop = shop().await;
    shop.lottery().await;
    let mut nonces = Vec::new();
    for n in 0..6 {
        let (status, entry) = shop.enter(&format!("b{n}")).await;
        assert_eq!((status, entry["status"].as_str()), (201, Some("entered")));
        let (status, again) = shop.enter(&format!("b{n}")).await;
        assert_eq!((status, &again["entry"]), (200, &entry["entry"]));
        nonces.push(entry["nonce"].as_str().unwrap().to_owned());
    }
    let (_, open) = shop.see("/v1/sales/vip/draw", "x").await;
    assert_eq!(
        (&open["state"], &open["seed"]),
        (&json!("open"), &json!(""))
    );
    assert_eq!(open["commitment"], Seed::new([7; 32]).commitment());
    let (status, refused) = shop.see("/v1/sales/vip/draw/entries", "x").await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("not_drawn_yet"))
    );

    shop.parts.now.store(CLOSES, Ordering::Relaxed);
    let (status, refused) = shop.enter("late").await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (410, Some("entries_closed"))
    );
    assert_eq!(
        shop.enter("b0").await.0,
        200,
        "they are in, and are told so"
    );
    assert_eq!(
        shop.see("/v1/sales/vip/draw", "x").await.1["state"],
        "closed"
    );
    let body = json!({"sku": "shoe"}).to_string();
    let buy = async |buyer: &str| {
        let (status, document, _) = shop.send(post("vip", Some(buyer), Some("k"), &body)).await;
        (status.as_u16(), document)
    };
    let (status, refused) = buy("b0").await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (403, Some("not_drawn")),
        "not drawn yet"
    );

    let engine = &shop.parts.engine;
    let sale = engine
        .ledger()
        .sale(&"vip".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    // Sealed by a node that died: nothing is told before the result is recorded.
    let seed = Seed::new([7; 32]);
    engine
        .ledger()
        .seal(&sale.id, &seed.to_hex(), "beef")
        .await
        .unwrap();
    let (_, sealed) = shop.see("/v1/sales/vip/draw", "x").await;
    assert_eq!(
        (&sealed["state"], &sealed["seed"], &sealed["beacon"]),
        (&json!("closed"), &json!(""), &json!(""))
    );
    engine
        .draw(&sale, &Seed::new([7; 32]), "beef")
        .await
        .unwrap()
        .unwrap();
    let (_, draw) = shop.see("/v1/sales/vip/draw", "x").await;
    assert_eq!(
        (&draw["state"], &draw["entries"]),
        (&json!("drawn"), &json!(6))
    );
    let mut entries: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/sales/vip/draw/entries?limit=4&after={after}");
        let (_, page) = shop.see(&path, "x").await;
        entries.extend(serde_json::from_value::<Vec<String>>(page["entries"].clone()).unwrap());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let mut fields = draw.clone();
    for field in ["object", "state", "closes_at_ms", "winners"] {
        fields.as_object_mut().unwrap().remove(field);
    }
    let published: Published = serde_json::from_value(fields).unwrap();
    let verdict = verify(&published, entries.iter().map(String::as_str));
    assert_eq!((verdict.faults.len(), verdict.winners.len()), (0, 2));
    for (n, nonce) in nonces.iter().enumerate() {
        let buyer = format!("b{n}");
        let mine = entry_of(&sale.id, &buyer.parse().unwrap(), nonce);
        let has_won = verdict.winners.contains(&mine);
        let (_, entry) = shop.see("/v1/sales/vip/entries", &buyer).await;
        assert_eq!(entry["status"], if has_won { "drawn" } else { "not_drawn" });
        let (status, answer) = buy(&buyer).await;
        assert_eq!(status, if has_won { 201 } else { 403 }, "{buyer}: {answer}");
    }
}

#[tokio::test]
async fn bad_input_of_a_lottery_is_a_problem() {
    let shop = shop().await;
    shop.lottery().await;
    assert_eq!(
        shop.see("/v1/sales/spring/draw", "x").await.1["code"],
        "no_lottery"
    );
    assert_eq!(
        shop.see("/v1/sales/vip/entries", "x").await.1["code"],
        "no_such_entry"
    );
    for query in ["limit=0", "limit=10001", "limit=x", "after=x", "page=1"] {
        let path = format!("/v1/sales/vip/draw/entries?{query}");
        assert_eq!(shop.see(&path, "x").await.0, 400, "{query}");
    }
    let anonymous = Request::post("/v1/sales/vip/entries")
        .body(Body::empty())
        .unwrap();
    assert_eq!(shop.send(anonymous).await.0, 401);
    let add = ["eve".parse().unwrap()];
    let (sale, block) = ("vip".parse().unwrap(), ListName::Block);
    shop.parts
        .engine
        .change_list(&sale, block, &add, &[])
        .await
        .unwrap();
    let (status, refused) = shop.enter("eve").await;
    assert_eq!((status, refused["code"].as_str()), (403, Some("blocked")));
}
