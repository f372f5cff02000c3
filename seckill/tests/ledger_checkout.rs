//! The life of an order after it was settled: held, paid, cancelled, expired. The same facts on SQLite and on PostgreSQL.

use delivery::Outbox;
use seckill::{
    ledger::{
        Action, Cancel, Dropped, Hold, NotPayable, OrderEvent, OrderStatus, Payment, Settled,
    },
    reaper,
};
use stock::StoredOrder;

use crate::support::ledger::{
    Engine, PAY_WITHIN_MS, T0, TestLedger, on_both_engines, order, order_id, segment,
};

on_both_engines! {
    unpaid_orders_expire_exactly_once,
    of_expiry_and_payment_exactly_one_wins,
    a_held_order_expires_only_after_the_hold_is_dropped,
    an_order_is_held_and_paid_by_one_intent,
    a_rolled_back_payment_leaves_nothing,
    only_the_buyer_cancels_and_never_after_payment,
    the_sql_agrees_with_the_state_machine,
}

/// INV-CLOCK-1. Broke: a worker an hour ahead released every unpaid order of the cluster within a second, irreversibly.
#[tokio::test]
async fn a_node_an_hour_ahead_returns_no_order_of_the_cluster() {
    let test = TestLedger::with_sale(Engine::Postgres, 1).await;
    let now_ms = test.ledger.now_ms(0).await.unwrap();
    let fresh = StoredOrder {
        pay_by_ms: now_ms + 600_000,
        ..order(1, 1)
    };
    let settled = test.ledger.settle(&segment(), 1, &[fresh], now_ms).await;
    assert_eq!(settled.unwrap(), [Settled::Settled]);
    let hour_ms = 3_600_000;
    let ahead = reaper::look(&test.ledger, now_ms + hour_ms).await;
    assert_eq!(ahead.unwrap(), None, "it decides nothing");
    let behind = reaper::look(&test.ledger, now_ms - hour_ms).await;
    assert_eq!(behind.unwrap(), None);
    let right = reaper::look(&test.ledger, now_ms).await;
    assert_eq!(right.unwrap(), Some(0), "nothing is due");
    let row = test.ledger.order(order_id(1)).await.unwrap().unwrap();
    assert_eq!(row.status, OrderStatus::Reserved);
}

async fn unpaid_orders_expire_exactly_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 100).await;
    test.settle_new(0, 50).await;
    assert_eq!(
        test.ledger
            .expire_due(T0 + PAY_WITHIN_MS - 1, 100)
            .await
            .unwrap(),
        []
    );

    let due_ms = T0 + PAY_WITHIN_MS + 50;
    let expire = || {
        let ledger = test.ledger.clone();
        tokio::spawn(async move {
            let mut released = Vec::new();
            // Two sweeps pass each other's orders over: neither waits for the other, let alone deadlocks.
            for _ in 0..40 {
                released.extend(ledger.expire_due(due_ms, 7).await.unwrap());
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
    assert_eq!(
        test.ledger.effects(&segment(), 100).await.unwrap().len(),
        50
    );
    assert_eq!(
        test.ledger
            .order(order_id(0))
            .await
            .unwrap()
            .unwrap()
            .reason,
        "expired"
    );
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
                let payment = ledger
                    .mark_paid(&mut tx, order_id(n), "pi_1", due_ms)
                    .await
                    .unwrap();
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
        released.extend(test.ledger.expire_due(due_ms, 1).await.unwrap());
        tokio::task::yield_now().await;
    }
    let paid = pay.await.unwrap();
    assert_eq!(paid.len() + released.len(), ORDERS as usize);
    assert!(paid.iter().all(|order| !released.contains(order)));
    let line = test.shoe().await;
    assert_eq!(
        (line.sold, line.paid_units, line.reserved_units),
        (paid.len() as u64, paid.len() as u64, 0)
    );
    let effects = test.ledger.effects(&segment(), 100).await.unwrap();
    let confirmed = effects
        .iter()
        .filter(|effect| effect.action == Action::Confirm)
        .count();
    assert_eq!((confirmed, effects.len()), (paid.len(), ORDERS as usize));
}

async fn a_held_order_expires_only_after_the_hold_is_dropped(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.settle_new(1, 1).await;
    let late_ms = T0 + 10 * PAY_WITHIN_MS;
    let mut connection = test.ledger.pool().acquire().await.unwrap();
    let held = test
        .ledger
        .hold(&mut connection, order_id(1), "pi_1", T0)
        .await
        .unwrap();
    assert!(matches!(held, Hold::Held(order) if order.status == OrderStatus::Paying));
    drop(connection);
    assert_eq!(test.ledger.expire_due(late_ms, 10).await.unwrap(), []);

    let mut connection = test.ledger.pool().acquire().await.unwrap();
    let other = test
        .ledger
        .drop_hold(&mut connection, order_id(1), "pi_2")
        .await
        .unwrap();
    assert_eq!(other, Dropped::NotHeld);
    let dropped = test
        .ledger
        .drop_hold(&mut connection, order_id(1), "pi_1")
        .await
        .unwrap();
    assert!(
        matches!(dropped, Dropped::Dropped(order) if order.status == OrderStatus::Reserved && order.intent.is_none())
    );
    // Its time is over: nobody may begin to pay it any more, expired by the reaper or not.
    let late = test
        .ledger
        .hold(&mut connection, order_id(1), "pi_2", late_ms)
        .await
        .unwrap();
    assert_eq!(late, Hold::NotPayable(NotPayable::Expired));
    drop(connection);
    assert_eq!(
        test.ledger.expire_due(late_ms, 10).await.unwrap(),
        [order_id(1)]
    );
}

async fn an_order_is_held_and_paid_by_one_intent(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.settle_new(1, 1).await;
    let mut connection = test.ledger.pool().acquire().await.unwrap();
    for _ in 0..2 {
        let held = test
            .ledger
            .hold(&mut connection, order_id(1), "pi_1", T0)
            .await
            .unwrap();
        assert!(matches!(held, Hold::Held(_)));
    }
    let held_by = NotPayable::HeldBy("pi_1".to_owned());
    let other = test
        .ledger
        .hold(&mut connection, order_id(1), "pi_2", T0)
        .await
        .unwrap();
    assert_eq!(other, Hold::NotPayable(held_by.clone()));
    let other = test
        .ledger
        .mark_paid(&mut connection, order_id(1), "pi_2", T0)
        .await
        .unwrap();
    assert_eq!(other, Payment::NotPayable(held_by));

    let paid = test
        .ledger
        .mark_paid(&mut connection, order_id(1), "pi_1", T0)
        .await
        .unwrap();
    assert!(matches!(&paid, Payment::Paid(order) if order.intent.as_deref() == Some("pi_1")));
    let again = test
        .ledger
        .mark_paid(&mut connection, order_id(1), "pi_1", T0)
        .await
        .unwrap();
    assert!(matches!(again, Payment::AlreadyPaid(_)));
    let other = test
        .ledger
        .mark_paid(&mut connection, order_id(1), "pi_2", T0)
        .await
        .unwrap();
    assert_eq!(
        other,
        Payment::NotPayable(NotPayable::PaidBy("pi_1".to_owned()))
    );
    let unknown = test
        .ledger
        .mark_paid(&mut connection, order_id(9), "pi_1", T0)
        .await
        .unwrap();
    assert_eq!(unknown, Payment::NotPayable(NotPayable::Unknown));
    drop(connection);
    assert_eq!(test.ledger.effects(&segment(), 10).await.unwrap().len(), 1);
    assert_eq!(test.ledger.events_pending().await.unwrap(), 2);
}

async fn a_rolled_back_payment_leaves_nothing(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    test.settle_new(1, 1).await;
    let mut tx = test.ledger.pool().begin().await.unwrap();
    let paid = test
        .ledger
        .mark_paid(&mut tx, order_id(1), "pi_1", T0)
        .await
        .unwrap();
    assert!(matches!(paid, Payment::Paid(_)));
    tx.rollback().await.unwrap();
    assert_eq!(
        test.ledger
            .order(order_id(1))
            .await
            .unwrap()
            .unwrap()
            .status,
        OrderStatus::Reserved
    );
    assert_eq!(test.ledger.effects(&segment(), 10).await.unwrap(), []);
    assert_eq!(test.ledger.events_pending().await.unwrap(), 1);
}

async fn only_the_buyer_cancels_and_never_after_payment(engine: Engine) {
    let test = TestLedger::with_sale(engine, 5).await;
    let orders = test.settle_new(1, 2).await;
    let stranger = test
        .ledger
        .cancel(order_id(1), &orders[1].buyer, T0)
        .await
        .unwrap();
    assert_eq!(stranger, Cancel::Unknown);
    let cancelled = test
        .ledger
        .cancel(order_id(1), &orders[0].buyer, T0)
        .await
        .unwrap();
    assert!(matches!(cancelled, Cancel::Cancelled(order) if order.reason == "cancelled"));
    let again = test
        .ledger
        .cancel(order_id(1), &orders[0].buyer, T0)
        .await
        .unwrap();
    assert!(matches!(again, Cancel::AlreadyReleased(_)));
    assert_eq!(test.shoe().await.sold, 1);
    assert_eq!(test.ledger.effects(&segment(), 10).await.unwrap().len(), 1);

    let mut connection = test.ledger.pool().acquire().await.unwrap();
    test.ledger
        .mark_paid(&mut connection, order_id(2), "pi_1", T0)
        .await
        .unwrap();
    drop(connection);
    let paid = test
        .ledger
        .cancel(order_id(2), &orders[1].buyer, T0)
        .await
        .unwrap();
    assert!(matches!(paid, Cancel::NotCancellable(order) if order.status == OrderStatus::Paid));
    assert_eq!(test.shoe().await.sold, 1);
}

async fn the_sql_agrees_with_the_state_machine(engine: Engine) {
    let test = TestLedger::with_sale(engine, 1000).await;
    let ledger = &test.ledger;
    let late_ms = T0 + 2 * PAY_WITHIN_MS;
    let events = [
        OrderEvent::Hold,
        OrderEvent::DropHold,
        OrderEvent::Pay,
        OrderEvent::Expire,
        OrderEvent::Cancel,
    ];
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
                OrderEvent::Hold => drop(
                    ledger
                        .hold(&mut connection, order_id(n), "pi_1", T0)
                        .await
                        .unwrap(),
                ),
                OrderEvent::DropHold => drop(
                    ledger
                        .drop_hold(&mut connection, order_id(n), "pi_1")
                        .await
                        .unwrap(),
                ),
                OrderEvent::Pay => drop(
                    ledger
                        .mark_paid(&mut connection, order_id(n), "pi_1", T0)
                        .await
                        .unwrap(),
                ),
                OrderEvent::Expire | OrderEvent::Cancel => {}
            }
            drop(connection);
            match event {
                OrderEvent::Expire => drop(ledger.expire_due(late_ms, 1000).await.unwrap()),
                OrderEvent::Cancel => drop(
                    ledger
                        .cancel(order_id(n), &orders[0].buyer, T0)
                        .await
                        .unwrap(),
                ),
                _ => {}
            }
            let expected = status.after(event).unwrap_or_else(|forbidden| forbidden);
            let now = ledger.order(order_id(n)).await.unwrap().unwrap().status;
            assert_eq!(now, expected, "{event:?} of a {status} order");
        }
    }
}
