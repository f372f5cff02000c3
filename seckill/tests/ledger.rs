//! The order ledger, the same facts on SQLite and on PostgreSQL.

use std::time::Duration;

use seckill::{
    ids::{BuyerId, RequestId, SkuId},
    ledger::{
        self, Action, Cancel, Created, Dropped, Hold, LedgerError, NotPayable, OrderEvent, OrderStatus, Payment, Restock,
        Restocked, Settled,
    },
    store::{Gate, OrderState, StoredOrder},
};

use crate::support::ledger::{
    Engine, PAY_WITHIN_MS, T0, TestLedger, on_both_engines, order, order_id, sale, sale_id, segment,
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
    unpaid_orders_expire_exactly_once,
    of_expiry_and_payment_exactly_one_wins,
    a_held_order_expires_only_after_the_hold_is_dropped,
    an_order_is_held_and_paid_by_one_intent,
    a_rolled_back_payment_leaves_nothing,
    only_the_buyer_cancels_and_never_after_payment,
    a_restock_adds_once_and_makes_room,
    a_sale_is_created_once_and_read_back,
    pages_show_every_order_once,
    the_sql_agrees_with_the_state_machine,
    waiting_for_an_order_ends_when_it_is_settled,
    the_report_counts_by_status,
    connecting_twice_keeps_the_data,
}

async fn a_redelivered_batch_changes_nothing(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let orders = [order(1, 2), order(2, 1)];
    let first = test.ledger.settle(&segment(), &orders, T0).await.unwrap();
    assert_eq!(first, [Settled::Settled; 2]);
    let mixed = [order(1, 2), order(3, 1), order(2, 1)];
    let again = test.ledger.settle(&segment(), &mixed, T0 + 5).await.unwrap();
    assert_eq!(again, [Settled::Duplicate, Settled::Settled, Settled::Duplicate]);
    assert_eq!(test.shoe().await.sold, 4);
    let settled = test.ledger.order(order_id(1)).await.unwrap().unwrap();
    assert_eq!((settled.amount_minor, settled.currency.as_str(), settled.settled_at_ms), (2 * 1999, "usd", T0));
    assert_eq!((settled.status, settled.intent), (OrderStatus::Reserved, None));
    assert_eq!(test.ledger.events_pending().await.unwrap(), 3);
}

async fn the_guard_refuses_only_what_is_beyond_the_stock(engine: Engine) {
    let test = TestLedger::with_sale(engine, 3).await;
    let settled = test.ledger.settle(&segment(), &[order(1, 2), order(2, 2), order(3, 1)], T0).await.unwrap();
    assert_eq!(settled, [Settled::Settled, Settled::Refused, Settled::Settled]);
    let line = test.shoe().await;
    assert_eq!((line.sold, line.reserved_units, line.orders), (3, 3, 3));

    let refused = test.ledger.order(order_id(2)).await.unwrap().unwrap();
    assert_eq!((refused.status, refused.reason.as_str()), (OrderStatus::Refused, "oversold"));
    let effects = test.ledger.effects(&segment(), 10).await.unwrap();
    assert_eq!(effects.len(), 1);
    assert_eq!((effects[0].order, effects[0].action), (order_id(2), Action::Release));
    let events = test.ledger.lease_events(T0, Duration::from_secs(1), 10).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| (event.order.order, event.kind.as_str())).collect();
    assert_eq!(kinds, [(order_id(1), "settled"), (order_id(2), "refused"), (order_id(3), "settled")]);

    let again = test.ledger.settle(&segment(), &[order(2, 2), order(4, 1)], T0).await.unwrap();
    assert_eq!(again, [Settled::Duplicate, Settled::Refused]);
    assert_eq!(test.shoe().await.sold, 3);
}

async fn an_order_twice_in_one_batch_takes_its_units_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let settled = test.ledger.settle(&segment(), &[order(1, 2), order(1, 2)], T0).await.unwrap();
    assert_eq!(settled, [Settled::Settled, Settled::Duplicate]);
    assert_eq!(test.shoe().await.sold, 2);
    // The same on the path that goes one by one.
    let settled = test.ledger.settle(&segment(), &[order(2, 2), order(2, 2), order(3, 9)], T0).await.unwrap();
    assert_eq!(settled, [Settled::Settled, Settled::Duplicate, Settled::Refused]);
    assert_eq!(test.shoe().await.sold, 4);
}

async fn the_same_batch_settled_by_two_workers_counts_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1000).await;
    for round in 0..10 {
        let orders: Vec<_> = (0..20).map(|n| order(round * 20 + n, 1)).collect();
        let settle = || {
            let (ledger, orders) = (test.ledger.clone(), orders.clone());
            tokio::spawn(async move { ledger.settle(&segment(), &orders, T0).await.unwrap() })
        };
        let (one, other) = (settle(), settle());
        let all: Vec<_> = one.await.unwrap().into_iter().chain(other.await.unwrap()).collect();
        assert_eq!(all.iter().filter(|settled| **settled == Settled::Settled).count(), 20);
    }
    let line = test.shoe().await;
    assert_eq!((line.sold, line.reserved_units, line.orders), (200, 200, 200));
}

async fn a_second_order_of_one_request_is_set_aside(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    test.ledger.settle(&segment(), &[order(1, 1)], T0).await.unwrap();
    let second = StoredOrder { order: order_id(2), ..order(1, 1) };
    for batch in [vec![second.clone()], vec![second, order(3, 99)]] {
        let settled = test.ledger.settle(&segment(), &batch, T0).await.unwrap();
        assert_eq!(settled[0], Settled::Refused);
    }
    assert_eq!(test.ledger.order(order_id(2)).await.unwrap(), None);
    let report = test.ledger.report(&sale_id()).await.unwrap().unwrap();
    assert_eq!((report.dead_letters, report.skus[0].sold), (1, 1));
    let released = test.ledger.effects(&segment(), 10).await.unwrap();
    assert!(released.iter().any(|effect| effect.order == order_id(2)));
}

async fn an_order_returned_before_settlement_takes_no_units(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let returned = StoredOrder { state: OrderState::Released, ..order(1, 1) };
    let settled = test.ledger.settle(&segment(), &[returned, order(2, 1)], T0).await.unwrap();
    assert_eq!(settled, [Settled::Settled; 2]);
    let known = test.ledger.order(order_id(1)).await.unwrap().unwrap();
    assert_eq!((known.status, known.reason.as_str()), (OrderStatus::Released, "returned"));
    assert_eq!(test.shoe().await.sold, 1);
}

async fn an_unknown_sku_is_told_and_changes_nothing(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let error = test.ledger.settle(&segment(), &[order(1, 1)], T0).await.unwrap_err();
    assert!(matches!(error, LedgerError::UnknownSku { .. }) && !error.is_transient());
    assert_eq!(test.ledger.order(order_id(1)).await.unwrap(), None);
    assert_eq!(test.ledger.segments_with_effects().await.unwrap(), []);
    assert_eq!(test.ledger.report(&sale_id()).await.unwrap(), None);
}

async fn ids_of_any_visible_characters_survive(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let buyer = BuyerId::try_new(r#"a"b\c,d{}'$1|[~]"#).unwrap();
    let request = RequestId::try_new(&"\\n'\";--".repeat(30)).unwrap();
    let odd = StoredOrder { buyer: buyer.clone(), request: request.clone(), ..order(1, 1) };
    test.ledger.settle(&segment(), &[odd, order(2, 1)], T0).await.unwrap();
    let found = test.ledger.order_by_request(&sale_id(), &segment().sku, &buyer, &request).await.unwrap().unwrap();
    assert_eq!((found.order, found.buyer, found.request), (order_id(1), buyer, request));
}

async fn unpaid_orders_expire_exactly_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 100).await;
    test.settle_new(0, 50).await;
    assert_eq!(test.ledger.expire_due(T0 + PAY_WITHIN_MS - 1, 100).await.unwrap().released, []);

    let due_ms = T0 + PAY_WITHIN_MS + 50;
    let expire = || {
        let ledger = test.ledger.clone();
        tokio::spawn(async move {
            let mut released = Vec::new();
            // A deadlock or a lost race is repeated, as the reaper does.
            for _ in 0..40 {
                released.extend(ledger.expire_due(due_ms, 7).await.map(|expiry| expiry.released).unwrap_or_default());
            }
            released
        })
    };
    let (one, other) = (expire(), expire());
    let mut released = one.await.unwrap();
    released.extend(other.await.unwrap());
    released.sort();
    assert_eq!(released, (0..50).map(order_id).collect::<Vec<_>>());
    assert_eq!(test.shoe().await.sold, 0);
    assert_eq!(test.ledger.effects(&segment(), 100).await.unwrap().len(), 50);
    assert_eq!(test.ledger.order(order_id(0)).await.unwrap().unwrap().reason, "expired");
}

async fn of_expiry_and_payment_exactly_one_wins(engine: Engine) {
    const ORDERS: u64 = 40;
    let test = TestLedger::with_sale(engine, ORDERS).await;
    test.settle_new(0, ORDERS).await;
    let due_ms = T0 + PAY_WITHIN_MS + ORDERS;
    let pay = {
        let ledger = test.ledger.clone();
        tokio::spawn(async move {
            let mut paid = Vec::new();
            for n in 0..ORDERS {
                let mut tx = ledger.pool().begin().await.unwrap();
                let payment = ledger.mark_paid(&mut tx, order_id(n), "pi_1", due_ms).await.unwrap();
                tx.commit().await.unwrap();
                match payment {
                    Payment::Paid(order) => paid.push(order.order),
                    Payment::NotPayable(why) => assert_eq!(why, NotPayable::Released),
                    Payment::AlreadyPaid(order) => panic!("{order:?}"),
                }
            }
            paid
        })
    };
    let mut released = Vec::new();
    while !pay.is_finished() {
        released.extend(test.ledger.expire_due(due_ms, 1).await.map(|expiry| expiry.released).unwrap_or_default());
        tokio::task::yield_now().await;
    }
    let paid = pay.await.unwrap();
    assert_eq!(paid.len() + released.len(), ORDERS as usize);
    assert!(paid.iter().all(|order| !released.contains(order)));
    let line = test.shoe().await;
    assert_eq!((line.sold, line.paid_units, line.reserved_units), (paid.len() as u64, paid.len() as u64, 0));
    let effects = test.ledger.effects(&segment(), 100).await.unwrap();
    let confirmed = effects.iter().filter(|effect| effect.action == Action::Confirm).count();
    assert_eq!((confirmed, effects.len()), (paid.len(), ORDERS as usize));
}

async fn a_held_order_expires_only_after_the_hold_is_dropped(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.settle_new(1, 1).await;
    let late_ms = T0 + 10 * PAY_WITHIN_MS;
    let mut connection = test.ledger.pool().acquire().await.unwrap();
    let held = test.ledger.hold(&mut connection, order_id(1), "pi_1", T0).await.unwrap();
    assert!(matches!(held, Hold::Held(order) if order.status == OrderStatus::Paying));
    drop(connection);
    assert_eq!(test.ledger.expire_due(late_ms, 10).await.unwrap().released, []);

    let mut connection = test.ledger.pool().acquire().await.unwrap();
    let other = test.ledger.drop_hold(&mut connection, order_id(1), "pi_2").await.unwrap();
    assert_eq!(other, Dropped::NotHeld);
    let dropped = test.ledger.drop_hold(&mut connection, order_id(1), "pi_1").await.unwrap();
    assert!(matches!(dropped, Dropped::Dropped(order) if order.status == OrderStatus::Reserved && order.intent.is_none()));
    // Its time is over: nobody may begin to pay it any more, expired by the reaper or not.
    let late = test.ledger.hold(&mut connection, order_id(1), "pi_2", late_ms).await.unwrap();
    assert_eq!(late, Hold::NotPayable(NotPayable::Expired));
    drop(connection);
    assert_eq!(test.ledger.expire_due(late_ms, 10).await.unwrap().released, [order_id(1)]);
}

async fn an_order_is_held_and_paid_by_one_intent(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.settle_new(1, 1).await;
    let mut connection = test.ledger.pool().acquire().await.unwrap();
    for _ in 0..2 {
        let held = test.ledger.hold(&mut connection, order_id(1), "pi_1", T0).await.unwrap();
        assert!(matches!(held, Hold::Held(_)));
    }
    let held_by = NotPayable::HeldBy("pi_1".to_owned());
    let other = test.ledger.hold(&mut connection, order_id(1), "pi_2", T0).await.unwrap();
    assert_eq!(other, Hold::NotPayable(held_by.clone()));
    let other = test.ledger.mark_paid(&mut connection, order_id(1), "pi_2", T0).await.unwrap();
    assert_eq!(other, Payment::NotPayable(held_by));

    let paid = test.ledger.mark_paid(&mut connection, order_id(1), "pi_1", T0).await.unwrap();
    assert!(matches!(&paid, Payment::Paid(order) if order.intent.as_deref() == Some("pi_1")));
    let again = test.ledger.mark_paid(&mut connection, order_id(1), "pi_1", T0).await.unwrap();
    assert!(matches!(again, Payment::AlreadyPaid(_)));
    let other = test.ledger.mark_paid(&mut connection, order_id(1), "pi_2", T0).await.unwrap();
    assert_eq!(other, Payment::NotPayable(NotPayable::PaidBy("pi_1".to_owned())));
    let unknown = test.ledger.mark_paid(&mut connection, order_id(9), "pi_1", T0).await.unwrap();
    assert_eq!(unknown, Payment::NotPayable(NotPayable::Unknown));
    drop(connection);
    assert_eq!(test.ledger.effects(&segment(), 10).await.unwrap().len(), 1);
    assert_eq!(test.ledger.events_pending().await.unwrap(), 2);
}

async fn a_rolled_back_payment_leaves_nothing(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.settle_new(1, 1).await;
    let mut tx = test.ledger.pool().begin().await.unwrap();
    let paid = test.ledger.mark_paid(&mut tx, order_id(1), "pi_1", T0).await.unwrap();
    assert!(matches!(paid, Payment::Paid(_)));
    tx.rollback().await.unwrap();
    assert_eq!(test.ledger.order(order_id(1)).await.unwrap().unwrap().status, OrderStatus::Reserved);
    assert_eq!(test.ledger.effects(&segment(), 10).await.unwrap(), []);
    assert_eq!(test.ledger.events_pending().await.unwrap(), 1);
}

async fn only_the_buyer_cancels_and_never_after_payment(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    let orders = test.settle_new(1, 2).await;
    let stranger = test.ledger.cancel(order_id(1), &orders[1].buyer, T0).await.unwrap();
    assert_eq!(stranger, Cancel::Unknown);
    let cancelled = test.ledger.cancel(order_id(1), &orders[0].buyer, T0).await.unwrap();
    assert!(matches!(cancelled, Cancel::Cancelled(order) if order.reason == "cancelled"));
    let again = test.ledger.cancel(order_id(1), &orders[0].buyer, T0).await.unwrap();
    assert!(matches!(again, Cancel::AlreadyReleased(_)));
    assert_eq!(test.shoe().await.sold, 1);
    assert_eq!(test.ledger.effects(&segment(), 10).await.unwrap().len(), 1);

    let mut connection = test.ledger.pool().acquire().await.unwrap();
    test.ledger.mark_paid(&mut connection, order_id(2), "pi_1", T0).await.unwrap();
    drop(connection);
    let paid = test.ledger.cancel(order_id(2), &orders[1].buyer, T0).await.unwrap();
    assert!(matches!(paid, Cancel::NotCancellable(order) if order.status == OrderStatus::Paid));
    assert_eq!(test.shoe().await.sold, 1);
}

async fn a_restock_adds_once_and_makes_room(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1).await;
    let settled = test.ledger.settle(&segment(), &[order(1, 2)], T0).await.unwrap();
    assert_eq!(settled, [Settled::Refused]);
    let restock = Restock { sku: segment().sku, id: "pallet-7".to_owned(), units: 4 };
    assert_eq!(test.ledger.restock(&sale_id(), &restock, T0).await.unwrap(), Restocked::Added);
    assert_eq!(test.ledger.restock(&sale_id(), &restock, T0).await.unwrap(), Restocked::Repeated);
    let other = Restock { units: 5, ..restock.clone() };
    assert_eq!(test.ledger.restock(&sale_id(), &other, T0).await.unwrap(), Restocked::Conflict);
    let unknown = Restock { sku: SkuId::try_new("hat").unwrap(), ..restock.clone() };
    assert_eq!(test.ledger.restock(&sale_id(), &unknown, T0).await.unwrap(), Restocked::UnknownSku);
    assert_eq!(test.ledger.restocks(&sale_id()).await.unwrap(), [restock]);
    let settled = test.ledger.settle(&segment(), &[order(2, 5), order(3, 1)], T0).await.unwrap();
    assert_eq!(settled, [Settled::Settled, Settled::Refused]);
    let line = test.shoe().await;
    assert_eq!((line.stock, line.restocked, line.sold), (1, 4, 5));
}

async fn a_sale_is_created_once_and_read_back(engine: Engine) {
    let test = TestLedger::new(engine).await;
    assert_eq!(test.ledger.create_sale(&sale(7), T0).await.unwrap(), Created::New);
    assert_eq!(test.ledger.set_gate(&sale_id(), Gate::Paused).await.unwrap(), true);
    assert_eq!(test.ledger.create_sale(&sale(7), T0).await.unwrap(), Created::Same);
    assert_eq!(test.ledger.create_sale(&sale(8), T0).await.unwrap(), Created::Conflict);
    let mut paused = sale(7);
    paused.gate = Gate::Paused;
    assert_eq!(test.ledger.sale(&sale_id()).await.unwrap(), Some(paused.clone()));
    assert_eq!(test.ledger.sales().await.unwrap(), [paused]);
    let other = "winter".parse().unwrap();
    assert_eq!(test.ledger.sale(&other).await.unwrap(), None);
    assert_eq!(test.ledger.set_gate(&other, Gate::Open).await.unwrap(), false);
}

async fn pages_show_every_order_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 100).await;
    test.settle_new(0, 25).await;
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = test.ledger.orders_page(&sale(100), after, 10).await.unwrap();
        seen.extend(page.orders.iter().map(|order| order.order));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(order_id).collect::<Vec<_>>());
}

async fn the_sql_agrees_with_the_state_machine(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1000).await;
    let ledger = &test.ledger;
    let late_ms = T0 + 2 * PAY_WITHIN_MS;
    let events = [OrderEvent::Hold, OrderEvent::DropHold, OrderEvent::Pay, OrderEvent::Expire, OrderEvent::Cancel];
    let mut n = 0;
    for status in OrderStatus::ALL {
        for event in events {
            n += 1;
            let orders = test.settle_new(n, 1).await;
            sqlx::query("UPDATE order_orders SET status = $1, intent = 'pi_1' WHERE order_id = $2")
                .bind(status.as_str())
                .bind(order_id(n).to_string())
                .execute(ledger.pool())
                .await
                .unwrap();
            let mut connection = ledger.pool().acquire().await.unwrap();
            match event {
                OrderEvent::Hold => drop(ledger.hold(&mut connection, order_id(n), "pi_1", T0).await.unwrap()),
                OrderEvent::DropHold => drop(ledger.drop_hold(&mut connection, order_id(n), "pi_1").await.unwrap()),
                OrderEvent::Pay => drop(ledger.mark_paid(&mut connection, order_id(n), "pi_1", T0).await.unwrap()),
                OrderEvent::Expire | OrderEvent::Cancel => {}
            }
            drop(connection);
            match event {
                OrderEvent::Expire => drop(ledger.expire_due(late_ms, 1000).await.unwrap()),
                OrderEvent::Cancel => drop(ledger.cancel(order_id(n), &orders[0].buyer, T0).await.unwrap()),
                _ => {}
            }
            let expected = status.after(event).unwrap_or_else(|forbidden| forbidden);
            let now = ledger.order(order_id(n)).await.unwrap().unwrap().status;
            assert_eq!(now, expected, "{event:?} of a {status} order");
        }
    }
}

async fn waiting_for_an_order_ends_when_it_is_settled(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    assert_eq!(test.ledger.await_order(order_id(1), Duration::from_millis(20)).await.unwrap(), None);
    let waiting = {
        let ledger = test.ledger.clone();
        tokio::spawn(async move { ledger.await_order(order_id(1), Duration::from_secs(30)).await })
    };
    test.settle_new(1, 1).await;
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().order, order_id(1));
}

async fn the_report_counts_by_status(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    let orders = test.settle_new(1, 6).await;
    test.ledger.cancel(order_id(1), &orders[0].buyer, T0).await.unwrap();
    let mut connection = test.ledger.pool().acquire().await.unwrap();
    test.ledger.mark_paid(&mut connection, order_id(2), "pi_1", T0).await.unwrap();
    test.ledger.hold(&mut connection, order_id(3), "pi_2", T0).await.unwrap();
    drop(connection);
    let report = test.ledger.report(&sale_id()).await.unwrap().unwrap();
    assert_eq!((report.settled, report.paid, report.returned, report.refused), (6, 1, 1, 1));
    assert_eq!((report.outbox_pending, report.effects_pending, report.outside_window), (8, 3, 0));
    let line = &report.skus[0];
    assert_eq!((line.sold, line.reserved_units, line.paid_units), (4, 3, 1));
    assert_eq!(report.skus[1].sku.as_str(), "boot");
}

async fn connecting_twice_keeps_the_data(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.ledger.pool().close().await;
    let error = test.ledger.sales().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let again = ledger::connect(&test.url).await.unwrap();
    assert_eq!(ledger::OrderLedger::new(again).sales().await.unwrap(), [sale(5)]);
}

#[tokio::test]
async fn an_address_of_another_kind_is_refused() {
    for url in ["mysql://x", "", "/var/lib/ledger.db", "sqlite:/dev/null/x.db"] {
        assert!(matches!(ledger::connect(url).await, Err(LedgerError::Address(_))), "{url:?}");
    }
}
