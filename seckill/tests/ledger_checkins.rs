//! Bookings in the ledger: how long they are held, and their codes, when everybody comes at once.

use seckill::{
    ids::SegmentId,
    ledger::{ATTEMPTS_MAX, CODES_MAX, CheckIn, OrderStatus},
    sale::{NewSale, Sale},
};
use stock::StoredOrder;

use crate::support::ledger::{Engine, T0, TestLedger, on_both_engines, order, sale_id};

on_both_engines! {
    a_free_booking_is_held_from_its_settlement_on,
    of_many_who_show_a_code_at_once_one_comes_in,
    wrong_codes_at_once_are_all_counted,
    a_booking_has_so_many_codes,
}

fn slots(price_minor: i128) -> Sale {
    let document = serde_json::json!({
        "id": "spring", "starts_at_ms": T0, "ends_at_ms": T0 + 30 * 86_400_000_u64, "pay_within": "1m", "buyer_limit": 2,
        "currency": "usd", "slots": {"stores": ["berlin"], "from": "2023-11-20", "days": 1, "opens": "10:00",
            "closes": "11:00", "slot": "1h", "utc_offset": "+01:00", "capacity": 5, "price_minor": price_minor}
    });
    let new: NewSale = serde_json::from_value(document).unwrap();
    new.check().unwrap()
}

/// 2023-11-20, 09:00 in UTC.
const SLOT: u64 = 1_700_470_800_000;

async fn with_booking(engine: Engine, price_minor: i128) -> (TestLedger, StoredOrder) {
    let test = TestLedger::new(engine).await;
    let sale = slots(price_minor);
    test.ledger.create_sale(&sale, T0).await.unwrap();
    let segment = SegmentId::first(sale_id(), sale.skus[0].sku.clone());
    let booking = order(1, 1);
    let batch = std::slice::from_ref(&booking);
    test.ledger.settle(&segment, 1, batch, T0).await.unwrap();
    (test, booking)
}

async fn a_free_booking_is_held_from_its_settlement_on(engine: Engine) {
    let (test, booking) = with_booking(engine, 0).await;
    let held = test.ledger.order(booking.order).await.unwrap().unwrap();
    assert_eq!(held.pay_by_ms, SLOT + 15 * 60_000);
    assert_eq!(test.ledger.sales().await.unwrap(), [slots(0)]);
    let (test, booking) = with_booking(engine, 500).await;
    let owed = test.ledger.order(booking.order).await.unwrap().unwrap();
    assert_eq!(
        owed.pay_by_ms, booking.pay_by_ms,
        "one that costs awaits its payment"
    );
}

async fn of_many_who_show_a_code_at_once_one_comes_in(engine: Engine) {
    let (test, booking) = with_booking(engine, 0).await;
    assert!(
        test.ledger
            .new_code(&sale_id(), booking.order, "right")
            .await
            .unwrap()
    );
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let ledger = test.ledger.clone();
        coming.spawn(async move {
            let is_right = |mac: &str| mac == "right";
            ledger
                .check_in(&sale_id(), booking.order, is_right, T0 + 1)
                .await
        });
    }
    let answers: Vec<_> = coming
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let came = answers
        .iter()
        .filter(|answer| matches!(answer, CheckIn::Done(_)))
        .count();
    let before = answers
        .iter()
        .filter(|answer| **answer == CheckIn::Before { at_ms: T0 + 1 })
        .count();
    assert_eq!((came, before), (1, 3), "{answers:?}");
    let used = test.ledger.order(booking.order).await.unwrap().unwrap();
    assert_eq!(used.status, OrderStatus::Paid);
}

async fn wrong_codes_at_once_are_all_counted(engine: Engine) {
    let (test, booking) = with_booking(engine, 0).await;
    test.ledger
        .new_code(&sale_id(), booking.order, "right")
        .await
        .unwrap();
    let mut guessing = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let ledger = test.ledger.clone();
        guessing.spawn(async move {
            ledger
                .check_in(&sale_id(), booking.order, |_| false, T0)
                .await
        });
    }
    let answers: Vec<_> = guessing
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let judged = answers
        .iter()
        .filter(|answer| matches!(answer, CheckIn::Wrong { .. }))
        .count();
    assert_eq!(judged, ATTEMPTS_MAX as usize);
    let right = test
        .ledger
        .check_in(&sale_id(), booking.order, |_| true, T0)
        .await;
    assert_eq!(right.unwrap(), CheckIn::Locked);
    let other = "winter".parse().unwrap();
    let elsewhere = test
        .ledger
        .check_in(&other, booking.order, |_| true, T0)
        .await;
    assert_eq!(elsewhere.unwrap(), CheckIn::Unknown);
}

async fn a_booking_has_so_many_codes(engine: Engine) {
    let (test, booking) = with_booking(engine, 500).await;
    for _ in 0..CODES_MAX {
        assert!(
            test.ledger
                .new_code(&sale_id(), booking.order, "m")
                .await
                .unwrap()
        );
    }
    assert!(
        !test
            .ledger
            .new_code(&sale_id(), booking.order, "m")
            .await
            .unwrap()
    );
    let unpaid = test
        .ledger
        .check_in(&sale_id(), booking.order, |_| true, T0)
        .await;
    assert_eq!(
        unpaid.unwrap(),
        CheckIn::NotBooked,
        "it costs, and is not paid"
    );
}
