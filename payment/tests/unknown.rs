//! Lost answers and lost processes: money in doubt stays reserved, the order stays held, and the resolver ends it.

use std::{sync::Arc, time::Duration};

use payment::Config;
use tokio_util::sync::CancellationToken;

use crate::support::{Db, KEY, Next, ScriptedChannel, Stack, on_both_engines};

on_both_engines!(
    an_unknown_charge_stays_processing_and_is_found_to_have_succeeded,
    an_unknown_charge_the_channel_never_saw_is_declined_and_frees_the_order,
    a_channel_that_still_does_not_say_is_asked_at_growing_distances,
    a_crash_after_the_charge_is_finished_by_the_next_process,
    a_crash_and_a_released_order_give_the_money_back,
    several_resolvers_settle_each_charge_once,
    a_channel_slower_than_its_deadline_is_unknown,
    a_charge_of_another_channel_is_not_asked_about,
    a_charge_is_resolved_at_the_channel_that_made_it,
    late_money_goes_back_through_the_channel_that_has_it,
    the_worker_resolves_and_stops,
);

async fn an_unknown_charge_stays_processing_and_is_found_to_have_succeeded(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::TakeSilently]);
    let id = stack.intent_for("ord_1").await;
    let path = format!("/v1/payment_intents/{id}/confirm");
    let reply = stack.api.post_with_key(&path, "", "k").await;
    assert_eq!(
        (reply.status, reply.text("status")),
        (200, "processing".into())
    );
    assert_eq!(stack.shop.status("ord_1").await, "paying");
    assert_eq!(stack.merchant_money().await, (0, 1999));
    stack.assert_sound().await;

    assert_eq!(stack.resolve().await, 0, "not yet time to ask");
    stack.advance(1_000);
    assert_eq!(stack.resolve().await, 1);
    let shown = stack.api.get(&format!("/v1/payment_intents/{id}")).await;
    assert_eq!(shown.text("status"), "succeeded");
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    assert_eq!(stack.merchant_money().await, (1999, 0));
    assert_eq!(stack.channel.charges(), 1);
    stack.assert_sound().await;

    // The first answer was given and stays the answer to its key.
    let replayed = stack.api.post_with_key(&path, "", "k").await;
    assert_eq!(replayed.json, reply.json);
}

/// Broke: whatever channel was configured was asked, said that it had never seen the charge, and the money was taken for refused.
async fn a_charge_of_another_channel_is_not_asked_about(db: Db) {
    let mut stack = Stack::new(db).await;
    stack.channel.plan([Next::TakeSilently]);
    let id = stack.intent_for("ord_1").await;
    assert_eq!(stack.confirm(&id).await.text("status"), "processing");
    let old = Arc::clone(&stack.channel);
    stack.restart_with(vec![Arc::new(ScriptedChannel::named("new"))]);
    stack.advance(1_000);
    stack.resolve().await;
    let path = format!("/v1/payment_intents/{id}");
    assert_eq!(stack.api.get(&path).await.text("status"), "processing");
    assert_eq!(stack.shop.status("ord_1").await, "paying");
    assert_eq!(stack.merchant_money().await, (0, 1999));
    let in_doubt = "SELECT COUNT(*) FROM pay_charges WHERE status = 'unknown'";
    assert_eq!(stack.db.int(in_doubt).await, 1);
    stack.assert_sound().await;

    // The operator configures it again.
    stack.restart_with(vec![old]);
    stack.advance(60_000);
    stack.resolve().await;
    assert_eq!(stack.api.get(&path).await.text("status"), "succeeded");
    assert_eq!(stack.merchant_money().await, (1999, 0));
}

async fn a_charge_is_resolved_at_the_channel_that_made_it(db: Db) {
    let mut stack = Stack::new(db).await;
    stack.channel.plan([Next::TakeSilently]);
    let old_id = stack.intent_for("ord_1").await;
    assert_eq!(stack.confirm(&old_id).await.text("status"), "processing");

    let (old, new) = (
        Arc::clone(&stack.channel),
        Arc::new(ScriptedChannel::named("new")),
    );
    stack.restart_with(vec![Arc::clone(&new), Arc::clone(&old)]);
    let new_id = stack.intent_for("ord_2").await;
    new.plan([Next::Silent]);
    assert_eq!(stack.confirm(&new_id).await.text("status"), "processing");
    assert_eq!((old.charges(), new.charges()), (1, 1));

    stack.advance(1_000);
    assert_eq!(stack.resolve().await, 2);
    assert_eq!((old.queries(), new.queries()), (1, 1));
    let status = async |id: &str| {
        let shown = stack.api.get(&format!("/v1/payment_intents/{id}")).await;
        shown.text("status")
    };
    assert_eq!(status(&old_id).await, "succeeded");
    assert_eq!(status(&new_id).await, "requires_payment_method");
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    assert_eq!(stack.shop.status("ord_2").await, "reserved");
    assert_eq!(stack.merchant_money().await, (1999, 0));
    stack.assert_sound().await;
}

async fn late_money_goes_back_through_the_channel_that_has_it(db: Db) {
    let mut stack = Stack::new(db).await;
    stack.channel.plan([Next::TakeSilently]);
    let id = stack.intent_for("ord_1").await;
    stack.confirm(&id).await;
    stack.shop.release("ord_1").await;
    let (old, new) = (
        Arc::clone(&stack.channel),
        Arc::new(ScriptedChannel::named("new")),
    );
    stack.restart_with(vec![Arc::clone(&new), Arc::clone(&old)]);
    stack.advance(1_000);
    stack.resolve().await;
    assert_eq!((old.refunds(), new.refunds()), (1, 0));
    assert_eq!(old.holds(), 0);
    assert_eq!(stack.merchant_money().await, (0, 0));
    stack.assert_sound().await;
}

async fn an_unknown_charge_the_channel_never_saw_is_declined_and_frees_the_order(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::Silent]);
    let id = stack.intent_for("ord_1").await;
    assert_eq!(stack.confirm(&id).await.text("status"), "processing");
    stack.advance(1_000);
    stack.resolve().await;
    let shown = stack.api.get(&format!("/v1/payment_intents/{id}")).await;
    assert_eq!(shown.text("status"), "requires_payment_method");
    assert_eq!(shown.json["last_payment_error"]["code"], "card_declined");
    assert_eq!(stack.shop.status("ord_1").await, "reserved");
    assert_eq!(stack.merchant_money().await, (0, 0));
    stack.assert_sound().await;
}

async fn a_channel_that_still_does_not_say_is_asked_at_growing_distances(db: Db) {
    let stack = Stack::new(db).await;
    stack
        .channel
        .plan([Next::TakeSilently, Next::Silent, Next::Silent]);
    let id = stack.intent_for("ord_1").await;
    stack.confirm(&id).await;
    for (wait_ms, asked) in [(999, 0), (1, 1), (1_999, 0), (1, 1), (3_999, 0), (1, 1)] {
        stack.advance(wait_ms);
        assert_eq!(stack.resolve().await, asked, "after {wait_ms} ms");
    }
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    stack.assert_sound().await;
}

async fn a_crash_after_the_charge_is_finished_by_the_next_process(db: Db) {
    let mut stack = Stack::new(db).await;
    stack.channel.plan([Next::Die]);
    let id = stack.intent_for("ord_1").await;
    let path = format!("/v1/payment_intents/{id}/confirm");
    let dying = {
        let (api, path) = (stack.api.clone(), path.clone());
        tokio::spawn(async move { api.post_with_key(&path, "", "k").await })
    };
    assert!(dying.await.unwrap_err().is_panic());

    stack.restart();
    let waiting = stack.api.post_with_key(&path, "", "k").await;
    assert_eq!(
        (waiting.status, waiting.error_code(), waiting.error_type()),
        (409, "idempotency_key_in_use", "idempotency_error")
    );
    assert_eq!(stack.resolve().await, 0, "it may still be at work");
    stack.advance(15_000);
    assert_eq!(stack.resolve().await, 1);
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    assert_eq!(stack.merchant_money().await, (1999, 0));

    let replayed = stack.api.post_with_key(&path, "", "k").await;
    assert_eq!(replayed.text("status"), "succeeded");
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    assert_eq!(stack.channel.charges(), 1);
    stack.assert_sound().await;
}

async fn a_crash_and_a_released_order_give_the_money_back(db: Db) {
    let mut stack = Stack::new(db).await;
    stack.channel.plan([Next::Die]);
    let id = stack.intent_for("ord_1").await;
    let dying = {
        let (api, path) = (
            stack.api.clone(),
            format!("/v1/payment_intents/{id}/confirm"),
        );
        tokio::spawn(async move { api.post(&path, "").await })
    };
    assert!(dying.await.unwrap_err().is_panic());
    stack.restart();
    stack.shop.release("ord_1").await;
    for _ in 0..3 {
        stack.advance(3_600_000);
        stack.resolve().await;
    }
    assert_eq!(stack.channel.refunds(), 1);
    assert_eq!(stack.channel.holds(), 0);
    assert_eq!(stack.merchant_money().await, (0, 0));
    stack.assert_sound().await;
}

async fn several_resolvers_settle_each_charge_once(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([const { Next::TakeSilently }; 4]);
    for n in 0..4 {
        let id = stack.intent_for(&format!("ord_{n}")).await;
        assert_eq!(stack.confirm(&id).await.text("status"), "processing");
    }
    stack.advance(60_000);
    let asked = tokio::join!(stack.resolve(), stack.resolve(), stack.resolve());
    assert_eq!(asked.0 + asked.1 + asked.2, 4);
    assert_eq!(stack.merchant_money().await, (4 * 1999, 0));
    stack.assert_sound().await;
}

async fn a_channel_slower_than_its_deadline_is_unknown(db: Db) {
    let config = Config {
        channel_timeout: Duration::from_millis(20),
        ..Config::for_key(KEY)
    };
    let stack = Stack::with_config(db, config).await;
    let id = stack.intent_for("ord_1").await;
    stack.channel.close();
    assert_eq!(stack.confirm(&id).await.text("status"), "processing");
    stack.channel.open();
    stack.advance(1_000);
    assert_eq!(stack.resolve().await, 1);
    assert_eq!(stack.shop.status("ord_1").await, "reserved");
    stack.assert_sound().await;
}

async fn the_worker_resolves_and_stops(db: Db) {
    let config = Config {
        resolve_interval: Duration::from_millis(10),
        ..Config::for_key(KEY)
    };
    let mut stack = Stack::new(db).await;
    let shutdown = CancellationToken::new();
    let mut payments = stack.restart_working(config, shutdown.clone());
    stack.channel.plan([Next::TakeSilently]);
    let id = stack.intent_for("ord_1").await;
    stack.confirm(&id).await;
    stack.advance(60_000);
    for _ in 0..500 {
        if stack.shop.status("ord_1").await == "paid" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    shutdown.cancel();
    assert_eq!(payments.tasks.len(), 1);
    while let Some(ended) = payments.tasks.join_next().await {
        ended.unwrap();
    }
}
