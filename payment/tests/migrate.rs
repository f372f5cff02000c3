//! The tables are laid in numbered steps, and those of earlier releases are taken over with their rows.

use payment::SCHEMA;
use seckill::ledger::LedgerError;

use crate::support::{Db, Next, Stack, on_both_engines};

on_both_engines!(
    a_database_from_before_the_steps_is_taken_over_with_its_rows,
    nodes_that_start_together_lay_the_tables_once,
    a_database_of_a_newer_release_is_refused,
);

const BEFORE: &str = include_str!("fixtures/before_steps.sql");
const PATH: &str = "/v1/payment_intents";

async fn a_database_from_before_the_steps_is_taken_over_with_its_rows(db: Db) {
    db.execute(BEFORE).await;
    let before = rows(&db).await;
    let stack = Stack::new(db).await;
    assert_eq!(rows(&stack.db).await, before);
    let refund: (String, String, String) =
        sqlx::query_as("SELECT id, purpose, transfer FROM pay_refunds")
            .fetch_one(&stack.db.pool)
            .await
            .unwrap();
    let late = "01k742sg02d0xksyec9pm8r7a8";
    assert_eq!(refund.0, format!("re_{late}"));
    assert_eq!(
        (refund.1.as_str(), refund.2),
        ("late", format!("refund:ch_{late}"))
    );
    assert_eq!(
        stack.db.count("pay_schema").await,
        SCHEMA.steps.len() as i64
    );
    for (order, status) in [
        ("ord_1", "paid"),
        ("ord_2", "released"),
        ("ord_3", "paying"),
    ] {
        stack.shop.add(order, 1999).await;
        stack.shop.set(order, status).await;
    }
    stack.assert_sound().await;

    // An answer that was given is given again, word for word.
    let body =
        "amount=1999&currency=usd&payment_method=pm_card_visa&confirm=true&metadata[order]=ord_1";
    let replayed = stack.api.post_with_key(PATH, body, "key-1").await;
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    let paid = format!("{PATH}/{}", replayed.text("id"));
    assert_eq!(stack.api.get(&paid).await.json, replayed.json);

    // The late payment goes back once. The channel never saw the one in doubt.
    stack.channel.plan_refunds([Next::Silent]);
    for _ in 0..4 {
        stack.advance(3_600_000);
        stack.resolve().await;
    }
    assert_eq!(stack.channel.refunds(), 1);
    assert_eq!(stack.channel.queries(), 1);
    assert_eq!(stack.shop.status("ord_3").await, "reserved");
    assert_eq!(stack.merchant_money().await, (1999, 0));
    let open = "SELECT COUNT(*) FROM pay_refunds WHERE status = 'pending'";
    assert_eq!(stack.db.int(open).await, 0);
    stack.assert_sound().await;
}

async fn nodes_that_start_together_lay_the_tables_once(db: Db) {
    let (one, two, three) = tokio::join!(db.lay(), db.lay(), db.lay());
    for laid in [one, two, three] {
        laid.unwrap();
    }
    assert_eq!(db.count("pay_schema").await, SCHEMA.steps.len() as i64);
}

async fn a_database_of_a_newer_release_is_refused(db: Db) {
    db.lay().await.unwrap();
    db.execute("INSERT INTO pay_schema (step) VALUES (1000)")
        .await;
    let refused = db.lay().await;
    assert!(
        matches!(refused, Err(LedgerError::NewerSchema { done: 1000, .. })),
        "{refused:?}"
    );
}

async fn rows(db: &Db) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in [
        "pay_intents",
        "pay_charges",
        "pay_refunds",
        "pay_transfers",
        "pay_entries",
        "pay_balances",
        "pay_idempotency",
        "pay_events",
    ] {
        rows.push(db.count(table).await);
    }
    rows
}
