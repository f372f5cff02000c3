//! A day at a store: free slots, bookings, cancelling, checking in, and who does not come.

use std::{sync::atomic::Ordering, time::Duration};

use axum::body::Body;
use http::Request;

use super::*;
use crate::{
    api::tests::{Shop, get, post, shop},
    ledger::{ATTEMPTS_MAX, CheckIn},
    sale::NewSale,
    test_shop::START,
};

/// 1970-01-02, 10:00 in UTC.
const SLOT: u64 = (24 + 10) * 3_600_000;
const TEN: &str = "berlin.19700102t1000";

impl Shop {
    /// A sale of two slots of one store and two places each, free of charge.
    async fn store(&self) {
        let sale = json!({
            "id": "visit", "starts_at_ms": START, "ends_at_ms": SLOT + 10 * 3_600_000, "pay_within": "15m",
            "buyer_limit": 2, "currency": "usd",
            "slots": {"stores": ["berlin"], "from": "1970-01-02", "days": 1, "opens": "10:00", "closes": "11:00",
                "slot": "30m", "utc_offset": "+00:00", "capacity": 2, "cancel_before": "1h", "grace": "10m"}
        });
        let new: NewSale = serde_json::from_value(sale).unwrap();
        let engine = &self.parts.engine;
        engine.use_checkin_key(b"a key of the shop's own");
        engine.create_sale(new.check().unwrap()).await.unwrap();
    }

    fn at(&self, now_ms: u64) {
        self.parts.now.store(now_ms, Ordering::Relaxed);
    }

    /// Books, and settles what was booked.
    async fn book(&self, buyer: &str, key: &str) -> (u16, Value) {
        let body = json!({"sku": TEN}).to_string();
        let (status, document, _) = self
            .send(post("visit", Some(buyer), Some(key), &body))
            .await;
        // The store hands an order out when it is on the disk, which may be a moment after its answer.
        while status == StatusCode::CREATED && !self.is_settled(&id_of(&document)).await {
            self.settle_visits().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (status.as_u16(), document)
    }

    async fn is_settled(&self, id: &str) -> bool {
        let ledger = self.parts.engine.ledger();
        ledger.order(id.parse().unwrap()).await.unwrap().is_some()
    }

    async fn settle_visits(&self) {
        let engine = &self.parts.engine;
        for segment in engine.catalogue().segments() {
            let pulled = engine.store().pull(&segment.id, "c", 10, Duration::ZERO);
            let entries = pulled.await.unwrap();
            let positions: Vec<_> = entries.iter().map(|entry| entry.position).collect();
            let orders: Vec<_> = entries
                .into_iter()
                .map(|entry| entry.order.unwrap())
                .collect();
            let ledger = engine.ledger();
            ledger
                .settle(&segment.id, 1, &orders, engine.now_ms())
                .await
                .unwrap();
            engine.store().ack(&segment.id, &positions).await.unwrap();
        }
    }

    async fn order_of(&self, id: &str, buyer: &str) -> Value {
        self.send(get(&format!("/v1/orders/{id}"), buyer)).await.1
    }

    async fn code_of(&self, id: &str, buyer: &str) -> (u16, Value) {
        let request = Request::post(format!("/v1/orders/{id}/code"))
            .header("x-buyer-id", buyer)
            .body(Body::empty())
            .unwrap();
        let (status, document, _) = self.send(request).await;
        (status.as_u16(), document)
    }

    async fn cancel(&self, id: &str, buyer: &str) -> (u16, Value) {
        let request = Request::delete(format!("/v1/orders/{id}"))
            .header("x-buyer-id", buyer)
            .body(Body::empty())
            .unwrap();
        let (status, document, _) = self.send(request).await;
        (status.as_u16(), document)
    }

    async fn come(&self, id: &str, code: &str) -> CheckIn {
        let (sale, order) = ("visit".parse().unwrap(), id.parse().unwrap());
        let engine = &self.parts.engine;
        engine.check_in(&sale, order, code).await.unwrap()
    }
}

fn id_of(order: &Value) -> String {
    order["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn free_slots_are_listed_and_booked_until_they_begin() {
    let shop = shop().await;
    shop.store().await;
    let slots = async || {
        shop.parts.engine.refresh().await.unwrap();
        let (_, listed, _) = shop
            .send(get("/v1/sales/visit/slots?store=berlin", "x"))
            .await;
        let slots = listed["slots"].as_array().unwrap().clone();
        let line = |slot: &Value| {
            (
                slot["sku"].as_str().unwrap().to_owned(),
                slot["free"].as_u64(),
            )
        };
        slots.iter().map(line).collect::<Vec<_>>()
    };
    let half_past = "berlin.19700102t1030".to_owned();
    assert_eq!(
        slots().await,
        [(TEN.to_owned(), Some(2)), (half_past.clone(), Some(2))]
    );
    assert_eq!(shop.book("ann", "k1").await.0, 201);
    assert_eq!(slots().await[0].1, Some(1));
    assert_eq!(shop.book("bob", "k1").await.0, 201);
    assert_eq!(shop.book("cat", "k1").await.1["code"], "sold_out");

    shop.at(SLOT);
    // The memory of "sold out" forgets a window that is over at the next refresh.
    shop.parts.engine.refresh().await.unwrap();
    let (status, late) = shop.book("cat", "k2").await;
    assert_eq!(
        (status, late["code"].as_str()),
        (410, Some("ended")),
        "the store's own window"
    );
    assert_eq!(slots().await, [(half_past, Some(2))]);
    assert_eq!(
        shop.send(get("/v1/sales/spring/slots", "x")).await.1["code"],
        "no_slots"
    );
}

#[tokio::test]
async fn a_free_booking_is_held_by_its_settlement_and_cancelled_in_time() {
    let shop = shop().await;
    shop.store().await;
    let (_, order) = shop.book("ann", "k1").await;
    let id = id_of(&order);
    let booked = shop.order_of(&id, "ann").await;
    // Not fifteen minutes, as an order that awaits its payment: until ten minutes after its slot has begun.
    assert_eq!(
        (&booked["status"], &booked["pay_by_ms"]),
        (&json!("reserved"), &json!(SLOT + 600_000))
    );
    shop.at(SLOT - 3_600_001);
    let ledger = shop.parts.engine.ledger();
    assert_eq!(
        crate::reaper::sweep(ledger, SLOT - 3_600_001)
            .await
            .unwrap(),
        0
    );
    assert_eq!(shop.cancel(&id, "ann").await.1["status"], "released");

    let (_, order) = shop.book("bob", "k1").await;
    shop.at(SLOT - 3_600_000);
    let (status, refused) = shop.cancel(&id_of(&order), "bob").await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("not_cancellable"))
    );
}

#[tokio::test]
async fn a_code_opens_its_booking_once() {
    let shop = shop().await;
    shop.store().await;
    let id = id_of(&shop.book("ann", "k1").await.1);
    let other = id_of(&shop.book("bob", "k1").await.1);
    assert_eq!(
        shop.code_of(&id, "bob").await.0,
        404,
        "somebody else's booking"
    );
    assert_eq!(
        shop.come(&id, "00000000").await,
        CheckIn::Unknown,
        "no code was made"
    );
    let (status, made) = shop.code_of(&id, "ann").await;
    assert_eq!(status, 201);
    let code = made["code"].as_str().unwrap().to_owned();
    shop.code_of(&other, "bob").await;
    assert!(
        matches!(shop.come(&other, &code).await, CheckIn::Wrong { .. }),
        "of another booking"
    );
    shop.at(SLOT);
    // As people write it.
    let written = format!(" {}-{} ", &code[..4], &code[4..]).to_lowercase();
    let CheckIn::Done(order) = shop.come(&id, &written).await else {
        panic!("the code was right");
    };
    assert_eq!(order.status, OrderStatus::Paid);
    assert_eq!(shop.come(&id, &code).await, CheckIn::Before { at_ms: SLOT });
    assert_eq!(shop.code_of(&id, "ann").await.1["code"], "code_locked");
    assert_eq!(shop.cancel(&id, "ann").await.0, 409);
}

#[tokio::test]
async fn tries_at_a_code_are_bounded_and_a_new_code_forgets_the_old() {
    let shop = shop().await;
    shop.store().await;
    let id = id_of(&shop.book("ann", "k1").await.1);
    let first = shop.code_of(&id, "ann").await.1["code"]
        .as_str()
        .unwrap()
        .to_owned();
    for left in (0..ATTEMPTS_MAX).rev() {
        assert_eq!(shop.come(&id, "WRONG").await, CheckIn::Wrong { left });
    }
    assert_eq!(
        shop.come(&id, &first).await,
        CheckIn::Locked,
        "right, and too late"
    );
    let second = shop.code_of(&id, "ann").await.1["code"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(matches!(
        shop.come(&id, &first).await,
        CheckIn::Wrong { .. }
    ));
    assert!(matches!(shop.come(&id, &second).await, CheckIn::Done(_)));
}

#[tokio::test]
async fn who_does_not_come_is_counted_and_his_place_is_not_sold_again() {
    let shop = shop().await;
    shop.store().await;
    let came = id_of(&shop.book("ann", "k1").await.1);
    let lost = id_of(&shop.book("bob", "k1").await.1);
    let codes = [
        shop.code_of(&came, "ann").await.1,
        shop.code_of(&lost, "bob").await.1,
    ];
    let code = |place: usize| codes[place]["code"].as_str().unwrap().to_owned();
    shop.at(SLOT + 60_000);
    assert!(matches!(shop.come(&came, &code(0)).await, CheckIn::Done(_)));
    shop.at(SLOT + 600_000);
    let ledger = shop.parts.engine.ledger();
    assert_eq!(
        crate::reaper::sweep(ledger, SLOT + 600_000).await.unwrap(),
        1
    );
    assert_eq!(
        shop.come(&lost, &code(1)).await,
        CheckIn::NotBooked,
        "after the grace"
    );
    let counts = ledger.slot_counts(&"visit".parse().unwrap()).await.unwrap();
    let ten = &counts[&TEN.parse().unwrap()];
    assert_eq!(
        (ten.booked, ten.checked_in, ten.cancelled, ten.no_show),
        (0, 1, 0, 1)
    );
    assert_eq!(shop.book("cat", "k1").await.0, 410);
}
