//! Taking batches into the ledger, the same facts on SQLite and on PostgreSQL.

use std::time::Duration;

use delivery::Outbox;
use seckill::{
    ids::{BuyerId, RequestId},
    ledger::{self, Action, LedgerError, LedgerOrder, OrderLedger, OrderStatus, Settled},
};
use stock::{Metadata, OrderState, StoredOrder};

use crate::support::ledger::{
    Engine, T0, TestLedger, on_both_engines, order, order_id, sale_id, segment,
};

on_both_engines! {
    a_redelivered_batch_changes_nothing,
    the_guard_refuses_only_what_is_beyond_the_stock,
    an_order_twice_in_one_batch_takes_its_units_once,
    the_same_batch_settled_by_two_workers_counts_once,
    a_second_order_of_one_request_is_set_aside,
    an_order_returned_before_settlement_takes_no_units,
    an_unknown_sku_is_told_and_changes_nothing,
    ids_of_any_visible_characters_survive,
    metadata_is_kept_with_its_order,
    a_ledger_from_before_metadata_is_taken_over,
}

async fn a_redelivered_batch_changes_nothing(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let orders = [order(1, 2), order(2, 1)];
    let first = test
        .ledger
        .settle(&segment(), 1, &orders, T0)
        .await
        .unwrap();
    assert_eq!(first, [Settled::Settled; 2]);
    let mixed = [order(1, 2), order(3, 1), order(2, 1)];
    let again = test
        .ledger
        .settle(&segment(), 1, &mixed, T0 + 5)
        .await
        .unwrap();
    assert_eq!(
        again,
        [Settled::Duplicate, Settled::Settled, Settled::Duplicate]
    );
    assert_eq!(test.shoe().await.sold, 4);
    let settled = test.ledger.order(order_id(1)).await.unwrap().unwrap();
    assert_eq!(
        (
            settled.amount_minor,
            settled.currency.as_str(),
            settled.settled_at_ms
        ),
        (2 * 1999, "usd", T0)
    );
    assert_eq!(
        (settled.status, settled.intent),
        (OrderStatus::Reserved, None)
    );
    assert_eq!(test.ledger.events_pending().await.unwrap(), 3);
}

async fn the_guard_refuses_only_what_is_beyond_the_stock(engine: Engine) {
    let test = TestLedger::with_sale(engine, 3).await;
    let settled = test
        .ledger
        .settle(&segment(), 1, &[order(1, 2), order(2, 2), order(3, 1)], T0)
        .await
        .unwrap();
    assert_eq!(
        settled,
        [Settled::Settled, Settled::Refused, Settled::Settled]
    );
    let line = test.shoe().await;
    assert_eq!((line.sold, line.reserved_units, line.orders), (3, 3, 3));

    let refused = test.ledger.order(order_id(2)).await.unwrap().unwrap();
    assert_eq!(
        (refused.status, refused.reason.as_str()),
        (OrderStatus::Refused, "oversold")
    );
    let effects = test.ledger.effects(&segment(), 10).await.unwrap();
    assert_eq!(effects.len(), 1);
    assert_eq!(
        (effects[0].order, effects[0].action),
        (order_id(2), Action::Release)
    );
    let events = test
        .ledger
        .lease_events(T0, Duration::from_secs(1), 10)
        .await
        .unwrap();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| (event.order.clone(), event.kind.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            (order_id(1).to_string(), "settled"),
            (order_id(2).to_string(), "refused"),
            (order_id(3).to_string(), "settled")
        ]
    );

    let again = test
        .ledger
        .settle(&segment(), 1, &[order(2, 2), order(4, 1)], T0)
        .await
        .unwrap();
    assert_eq!(again, [Settled::Duplicate, Settled::Refused]);
    assert_eq!(test.shoe().await.sold, 3);
}

async fn an_order_twice_in_one_batch_takes_its_units_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let settled = test
        .ledger
        .settle(&segment(), 1, &[order(1, 2), order(1, 2)], T0)
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Settled, Settled::Duplicate]);
    assert_eq!(test.shoe().await.sold, 2);
    // The same on the path that goes one by one.
    let settled = test
        .ledger
        .settle(&segment(), 1, &[order(2, 2), order(2, 2), order(3, 9)], T0)
        .await
        .unwrap();
    assert_eq!(
        settled,
        [Settled::Settled, Settled::Duplicate, Settled::Refused]
    );
    assert_eq!(test.shoe().await.sold, 4);
}

async fn the_same_batch_settled_by_two_workers_counts_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1000).await;
    for round in 0..10 {
        let orders: Vec<_> = (0..20).map(|n| order(round * 20 + n, 1)).collect();
        let settle = || {
            let (ledger, orders) = (test.ledger.clone(), orders.clone());
            tokio::spawn(async move { ledger.settle(&segment(), 1, &orders, T0).await.unwrap() })
        };
        let (one, other) = (settle(), settle());
        let all: Vec<_> = one
            .await
            .unwrap()
            .into_iter()
            .chain(other.await.unwrap())
            .collect();
        assert_eq!(
            all.iter()
                .filter(|settled| **settled == Settled::Settled)
                .count(),
            20
        );
    }
    let line = test.shoe().await;
    assert_eq!(
        (line.sold, line.reserved_units, line.orders),
        (200, 200, 200)
    );
}

async fn a_second_order_of_one_request_is_set_aside(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    test.ledger
        .settle(&segment(), 1, &[order(1, 1)], T0)
        .await
        .unwrap();
    let second = StoredOrder {
        order: order_id(2),
        ..order(1, 1)
    };
    for batch in [vec![second.clone()], vec![second, order(3, 99)]] {
        let settled = test.ledger.settle(&segment(), 1, &batch, T0).await.unwrap();
        assert_eq!(settled[0], Settled::SecondOrder);
    }
    assert_eq!(test.ledger.order(order_id(2)).await.unwrap(), None);
    let report = test.ledger.report(&sale_id()).await.unwrap().unwrap();
    assert_eq!((report.dead_letters, report.skus[0].sold), (1, 1));
    let released = test.ledger.effects(&segment(), 10).await.unwrap();
    assert!(released.iter().any(|effect| effect.order == order_id(2)));
}

async fn an_order_returned_before_settlement_takes_no_units(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let returned = StoredOrder {
        state: OrderState::Released,
        ..order(1, 1)
    };
    let settled = test
        .ledger
        .settle(&segment(), 1, &[returned, order(2, 1)], T0)
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Settled; 2]);
    let known = test.ledger.order(order_id(1)).await.unwrap().unwrap();
    assert_eq!(
        (known.status, known.reason.as_str()),
        (OrderStatus::Released, "returned")
    );
    assert_eq!(test.shoe().await.sold, 1);
}

async fn an_unknown_sku_is_told_and_changes_nothing(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let error = test
        .ledger
        .settle(&segment(), 1, &[order(1, 1)], T0)
        .await
        .unwrap_err();
    assert!(matches!(error, LedgerError::UnknownSku { .. }) && !error.is_transient());
    assert_eq!(test.ledger.order(order_id(1)).await.unwrap(), None);
    assert_eq!(test.ledger.segments_with_effects().await.unwrap(), []);
    assert_eq!(test.ledger.report(&sale_id()).await.unwrap(), None);
}

async fn ids_of_any_visible_characters_survive(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let buyer = BuyerId::try_new(r#"a"b\c,d{}'$1|[~]"#).unwrap();
    let request = RequestId::try_new(&"\\n'\";--".repeat(30)).unwrap();
    let odd = StoredOrder {
        buyer: buyer.clone(),
        request: request.clone(),
        ..order(1, 1)
    };
    test.ledger
        .settle(&segment(), 1, &[odd, order(2, 1)], T0)
        .await
        .unwrap();
    let found = test
        .ledger
        .order_by_request(&sale_id(), &segment().sku, &buyer, &request)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.order, found.buyer, found.request),
        (order_id(1), buyer, request)
    );
}

fn metadata(entries: &[(&str, &str)]) -> Option<Metadata> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Metadata::try_new(entries.iter().map(owned)).unwrap()
}

/// Whatever is in the batch beside it, and whichever statement reads or changes the row.
async fn metadata_is_kept_with_its_order(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let odd = metadata(&[
        ("a\\\"", "b \\n ' {} $1 \u{2028} NULL"),
        ("\u{44f}", ""),
        ("null", "null"),
    ]);
    let with = |n: u64, metadata: &Option<Metadata>| StoredOrder {
        metadata: metadata.clone(),
        ..order(n, 1)
    };
    let short = metadata(&[("cart", "1")]);
    let batches = [
        vec![with(1, &None)],
        vec![with(2, &odd)],
        vec![with(3, &None), with(4, &None)],
        vec![
            with(5, &None),
            with(6, &odd),
            with(7, &None),
            with(8, &short),
            with(9, &None),
        ],
    ];
    for batch in &batches {
        let home = segment();
        let settle = || test.ledger.settle(&home, 1, batch, T0);
        let settled = settle().await.unwrap();
        assert!(
            settled.iter().all(|one| *one == Settled::Settled),
            "{settled:?}"
        );
        settle().await.unwrap();
    }
    let nulls = "SELECT COUNT(*) FROM order_orders WHERE metadata IS NULL";
    let nulls: i64 = sqlx::query_scalar(nulls)
        .fetch_one(test.ledger.pool())
        .await
        .unwrap();
    assert_eq!(nulls, 6, "nothing is stored where there is nothing");

    let orders = batches.concat();
    let rows = test
        .ledger
        .segment_orders(&segment(), None, 99)
        .await
        .unwrap();
    let stored: Vec<_> = rows.iter().map(LedgerOrder::as_stored).collect();
    assert_eq!(stored, orders);
    let cancelled = test
        .ledger
        .cancel(order_id(6), &orders[5].buyer, T0)
        .await
        .unwrap();
    let ledger::Cancel::Cancelled(cancelled) = cancelled else {
        panic!("{cancelled:?}")
    };
    assert_eq!(cancelled.metadata, odd);
    let found = test.ledger.order(order_id(6)).await.unwrap().unwrap();
    assert_eq!(found.metadata, odd);

    // Beyond the stock: one order at a time, and refused ones keep it as well.
    let over: Vec<_> = (10..14).map(|n| with(n, &short)).collect();
    let settled = test.ledger.settle(&segment(), 1, &over, T0).await.unwrap();
    assert_eq!(settled[2..], [Settled::Refused, Settled::Refused]);
    for n in 10..14 {
        let row = test.ledger.order(order_id(n)).await.unwrap().unwrap();
        assert_eq!(row.metadata, short);
    }
    // As the shop is told.
    test.advance(1_000_000);
    let events = test
        .ledger
        .lease_events(test.now_ms(), Duration::from_secs(9), 99)
        .await
        .unwrap();
    for event in events {
        let document: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        let order = orders
            .iter()
            .chain(&over)
            .find(|one| one.order.to_string() == event.order);
        let expected = order.unwrap().metadata.as_ref();
        let told = document["data"]["order"].get("metadata");
        assert_eq!(told, expected.map(|kept| serde_json::json!(kept)).as_ref());
    }
    let expired = test.ledger.expire_due(u64::MAX >> 2, 99).await.unwrap();
    assert!(!expired.is_empty());
}

/// Its rows are read as ever, and new orders can have metadata.
async fn a_ledger_from_before_metadata_is_taken_over(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let old = order(1, 1);
    test.ledger
        .settle(&segment(), 1, std::slice::from_ref(&old), T0)
        .await
        .unwrap();
    for statement in [
        "ALTER TABLE order_orders DROP COLUMN metadata",
        "DELETE FROM sale_schema WHERE step = 13",
    ] {
        sqlx::query(statement)
            .execute(test.ledger.pool())
            .await
            .unwrap();
    }
    let ledger = OrderLedger::new(ledger::connect(&test.url).await.unwrap());
    let new = StoredOrder {
        metadata: metadata(&[("cart", "1")]),
        ..order(2, 1)
    };
    ledger
        .settle(&segment(), 1, std::slice::from_ref(&new), T0)
        .await
        .unwrap();
    let rows = ledger.segment_orders(&segment(), None, 9).await.unwrap();
    let stored: Vec<_> = rows.iter().map(LedgerOrder::as_stored).collect();
    assert_eq!(stored, [old, new]);
}
