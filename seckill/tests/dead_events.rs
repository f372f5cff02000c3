//! Events that were given up, and their replay: due again exactly once. The same facts on SQLite and on PostgreSQL.

use std::time::Duration;

use delivery::{Event, Outbox};
use seckill::ledger::{EventId, Revived};

use crate::support::ledger::{Engine, T0, TestLedger, on_both_engines, order_id, sale_id};

on_both_engines! {
    a_dead_event_is_due_again_exactly_once,
    all_dead_events_of_a_sale_are_due_again_and_no_others,
    pages_show_every_dead_event_once,
}

const LEASE: Duration = Duration::from_secs(30);

/// Gives up the first events of these orders.
async fn give_up(test: &TestLedger, orders: u64) -> Vec<Event> {
    test.settle_new(1, orders).await;
    let events = test
        .ledger
        .lease_events(test.now_ms(), LEASE, 10_000)
        .await
        .unwrap();
    assert_eq!(events.len() as u64, orders);
    kill(test, &events).await;
    events
}

async fn kill(test: &TestLedger, events: &[Event]) {
    let given_up: Vec<_> = events
        .iter()
        .map(|event| (event.clone(), "by the test".to_owned()))
        .collect();
    test.ledger
        .events_dead(&given_up, test.now_ms())
        .await
        .unwrap();
}

async fn a_dead_event_is_due_again_exactly_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 10).await;
    let events = give_up(&test, 1).await;
    let id = EventId {
        order: order_id(1),
        step: 1,
    };
    assert_eq!(events[0].id, id.to_string());
    assert_eq!(test.ledger.events_given_up().await.unwrap(), 1);
    test.advance(5);
    let due = async || {
        test.ledger
            .lease_events(test.now_ms(), LEASE, 10)
            .await
            .unwrap()
    };
    assert!(due().await.is_empty());
    let revive = async || {
        test.ledger
            .revive_event(&sale_id(), id, test.now_ms())
            .await
            .unwrap()
    };
    assert_eq!(revive().await, Revived::Due);
    assert_eq!(revive().await, Revived::Alive);
    let again = due().await;
    assert_eq!(
        (again.len(), again[0].attempts),
        (1, 1),
        "with all its tries before it"
    );
    assert_eq!(revive().await, Revived::Alive, "leased");
    kill(&test, &again).await;
    assert_eq!(
        revive().await,
        Revived::Due,
        "given up again, and replayed again"
    );
    let again = due().await;
    test.ledger
        .events_delivered(&again, test.now_ms())
        .await
        .unwrap();
    assert_eq!(revive().await, Revived::Alive, "delivered");

    let other = "winter".parse().unwrap();
    let elsewhere = test.ledger.revive_event(&other, id, T0).await.unwrap();
    assert_eq!(elsewhere, Revived::Unknown, "of another sale");
    let nobody = EventId { step: 2, ..id };
    let unknown = test
        .ledger
        .revive_event(&sale_id(), nobody, T0)
        .await
        .unwrap();
    assert_eq!(unknown, Revived::Unknown);
}

async fn all_dead_events_of_a_sale_are_due_again_and_no_others(engine: Engine) {
    let test = TestLedger::with_sale(engine, 3_000).await;
    give_up(&test, 2_100).await;
    let other = "winter".parse().unwrap();
    assert_eq!(
        test.ledger
            .revive_events(&other, test.now_ms())
            .await
            .unwrap(),
        0
    );
    // Given up after the operator's call began: it is not taken into an endless round.
    assert_eq!(
        test.ledger
            .revive_events(&sale_id(), test.now_ms() - 1)
            .await
            .unwrap(),
        0
    );
    test.advance(1);
    let revive = async || {
        test.ledger
            .revive_events(&sale_id(), test.now_ms())
            .await
            .unwrap()
    };
    assert_eq!(revive().await, 2_100);
    assert_eq!(revive().await, 0);
    let due = test
        .ledger
        .lease_events(test.now_ms(), LEASE, 10_000)
        .await
        .unwrap();
    assert_eq!(due.len(), 2_100);
}

async fn pages_show_every_dead_event_once(engine: Engine) {
    let test = TestLedger::with_sale(engine, 100).await;
    let events = give_up(&test, 25).await;
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = test
            .ledger
            .dead_deliveries(&sale_id(), after, 10)
            .await
            .unwrap();
        for event in &page.rows {
            assert_eq!((event.kind.as_str(), event.attempts), ("settled", 1));
            assert_eq!(
                (event.dead_at_ms, event.order),
                (test.now_ms(), event.id.order)
            );
        }
        seen.extend(page.rows.iter().map(|event| event.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut all: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    all.sort();
    assert_eq!(seen, all);
}
