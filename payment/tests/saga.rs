//! The saga without orders: charges, declines, cancels, and what happens when things happen at once.

use std::time::Duration;

use crate::support::{Db, Next, Reply, Stack, on_both_engines};

on_both_engines!(
    create_then_confirm_posts_the_money,
    create_and_confirm_in_one_request,
    a_decline_leaves_the_books_balanced_and_another_card_may_be_tried,
    confirming_without_a_token_is_refused,
    concurrent_confirms_make_one_charge,
    concurrent_confirms_with_one_key_answer_alike,
    a_succeeded_intent_is_not_canceled,
    a_canceled_intent_is_not_charged,
    an_intent_in_processing_is_neither_confirmed_nor_canceled,
    a_client_that_leaves_does_not_stop_the_saga,
    every_change_is_an_event,
    a_silent_channel_is_no_longer_asked,
);

const CREATE: &str = "amount=1999&currency=usd&payment_method=pm_card_visa";

async fn create(stack: &Stack) -> String {
    let reply = stack.api.post("/v1/payment_intents", CREATE).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(reply.text("status"), "requires_confirmation");
    reply.text("id")
}

async fn cancel(stack: &Stack, id: &str) -> Reply {
    let path = format!("/v1/payment_intents/{id}/cancel");
    stack.api.post(&path, "").await
}

async fn create_then_confirm_posts_the_money(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    assert_eq!(stack.merchant_money().await, (0, 0));

    let paid = stack.confirm(&id).await;
    assert_eq!(
        (paid.status, paid.text("status")),
        (200, "succeeded".into())
    );
    assert_eq!(paid.json["amount_received"], 1999);
    assert!(paid.text("latest_charge").starts_with("ch_"));

    assert_eq!(stack.merchant_money().await, (1999, 0));
    assert_eq!(stack.channel.holds(), 1999);
    let shown = stack.api.get(&format!("/v1/payment_intents/{id}")).await;
    assert_eq!(shown.json, paid.json);
    stack.assert_sound().await;
}

async fn create_and_confirm_in_one_request(db: Db) {
    let stack = Stack::new(db).await;
    let body = format!("{CREATE}&confirm=true");
    let paid = stack.api.post("/v1/payment_intents", &body).await;
    assert_eq!(
        (paid.status, paid.text("status")),
        (200, "succeeded".into())
    );
    assert_eq!(stack.merchant_money().await, (1999, 0));
    stack.assert_sound().await;
}

async fn a_decline_leaves_the_books_balanced_and_another_card_may_be_tried(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::Decline]);
    let id = create(&stack).await;

    let declined = stack.confirm(&id).await;
    assert_eq!(declined.status, 402);
    let error = &declined.json["error"];
    assert_eq!(error["type"], "card_error");
    assert_eq!(error["code"], "card_declined");
    assert_eq!(error["decline_code"], "generic_decline");
    let intent = &error["payment_intent"];
    assert_eq!(intent["status"], "requires_payment_method");
    assert_eq!(intent["payment_method"], serde_json::Value::Null);
    assert_eq!(intent["last_payment_error"]["charge"], error["charge"]);
    assert_eq!(stack.merchant_money().await, (0, 0));
    stack.assert_sound().await;

    let path = format!("/v1/payment_intents/{id}/confirm");
    let paid = stack
        .api
        .post(&path, "payment_method=pm_card_mastercard")
        .await;
    assert_eq!(
        (paid.status, paid.text("status")),
        (200, "succeeded".into())
    );
    assert_eq!(paid.json["last_payment_error"], serde_json::Value::Null);
    assert_eq!(stack.merchant_money().await, (1999, 0));
    stack.assert_sound().await;
}

async fn confirming_without_a_token_is_refused(db: Db) {
    let stack = Stack::new(db).await;
    let made = stack
        .api
        .post("/v1/payment_intents", "amount=1&currency=jpy")
        .await;
    assert_eq!(made.text("status"), "requires_payment_method");
    let refused = stack.confirm(&made.text("id")).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (400, "payment_intent_unexpected_state")
    );
    let refused = stack
        .api
        .post("/v1/payment_intents", "amount=1&currency=jpy&confirm=true")
        .await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (400, "parameter_missing")
    );
    assert_eq!(stack.channel.charges(), 0);
}

/// INV-PAY-2.
async fn concurrent_confirms_make_one_charge(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    let path = format!("/v1/payment_intents/{id}/confirm");
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (api, path) = (stack.api.clone(), path.clone());
        tries.spawn(async move { api.post(&path, "").await });
    }
    let replies = tries.join_all().await;
    let paid = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(paid, 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert!(
            matches!(
                reply.error_code(),
                "payment_intent_unexpected_state" | "lock_timeout"
            ),
            "{}",
            reply.json
        );
    }
    assert_eq!(stack.channel.charges(), 1);
    assert_eq!(stack.merchant_money().await, (1999, 0));
    stack.assert_sound().await;
}

async fn concurrent_confirms_with_one_key_answer_alike(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    let path = format!("/v1/payment_intents/{id}/confirm");
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (api, path) = (stack.api.clone(), path.clone());
        tries.spawn(async move {
            loop {
                let reply = api.post_with_key(&path, "", "one").await;
                if reply.error_code() != "idempotency_key_in_use" {
                    return reply;
                }
                assert_eq!(reply.header("stripe-should-retry"), Some("true"));
                tokio::task::yield_now().await;
            }
        });
    }
    let replies = tries.join_all().await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert!(replies.iter().all(|reply| reply.json == replies[0].json));
    assert_eq!(stack.channel.charges(), 1);
    stack.assert_sound().await;
}

async fn a_succeeded_intent_is_not_canceled(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    assert_eq!(stack.confirm(&id).await.status, 200);
    let refused = cancel(&stack, &id).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (400, "payment_intent_unexpected_state")
    );
    assert_eq!(
        refused.json["error"]["payment_intent"]["status"],
        "succeeded"
    );
    let again = stack.confirm(&id).await;
    assert_eq!(again.error_code(), "payment_intent_unexpected_state");
    assert_eq!(stack.channel.charges(), 1);
    assert_eq!(stack.merchant_money().await, (1999, 0));
}

async fn a_canceled_intent_is_not_charged(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    let path = format!("/v1/payment_intents/{id}/cancel");
    let canceled = stack
        .api
        .post(&path, "cancellation_reason=requested_by_customer")
        .await;
    assert_eq!(canceled.text("status"), "canceled");
    assert_eq!(
        canceled.text("cancellation_reason"),
        "requested_by_customer"
    );
    assert_eq!(canceled.json["canceled_at"], 1_760_000_000);
    let refused = stack.confirm(&id).await;
    assert_eq!(refused.error_code(), "payment_intent_unexpected_state");
    let refused = cancel(&stack, &id).await;
    assert_eq!(refused.error_code(), "payment_intent_unexpected_state");
    assert_eq!(stack.channel.charges(), 0);
}

async fn an_intent_in_processing_is_neither_confirmed_nor_canceled(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    stack.channel.close();
    let first = {
        let (api, path) = (
            stack.api.clone(),
            format!("/v1/payment_intents/{id}/confirm"),
        );
        tokio::spawn(async move { api.post(&path, "").await })
    };
    eventually(|| stack.channel.charges() == 1).await;

    assert_eq!(
        cancel(&stack, &id).await.error_code(),
        "payment_intent_unexpected_state"
    );
    assert_eq!(
        stack.confirm(&id).await.error_code(),
        "payment_intent_unexpected_state"
    );
    assert_eq!(stack.merchant_money().await, (0, 1999), "reserved");
    stack.assert_sound().await;

    stack.channel.open();
    assert_eq!(first.await.unwrap().text("status"), "succeeded");
    assert_eq!(stack.merchant_money().await, (1999, 0));
}

async fn a_client_that_leaves_does_not_stop_the_saga(db: Db) {
    let stack = Stack::new(db).await;
    let id = create(&stack).await;
    stack.channel.close();
    let client = {
        let (api, path) = (
            stack.api.clone(),
            format!("/v1/payment_intents/{id}/confirm"),
        );
        tokio::spawn(async move { api.post(&path, "").await })
    };
    eventually(|| stack.channel.charges() == 1).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    stack.channel.open();

    for _ in 0..500 {
        if stack.merchant_money().await == (1999, 0) {
            let shown = stack.api.get(&format!("/v1/payment_intents/{id}")).await;
            assert_eq!(shown.text("status"), "succeeded");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the saga was cut off");
}

async fn every_change_is_an_event(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::Decline]);
    let body = format!("{CREATE}&confirm=true");
    let declined = stack.api.post("/v1/payment_intents", &body).await;
    let id = declined.json["error"]["payment_intent"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/payment_intents/{id}/confirm");
    let paid = stack
        .api
        .post_with_key(&path, "payment_method=pm_card_visa", "k-1")
        .await;

    let rows: Vec<(String, i64, String, Option<String>)> = sqlx::query_as(
        "SELECT type, version, data, idempotency_key FROM pay_events WHERE intent = $1 ORDER BY version",
    )
    .bind(&id)
    .fetch_all(&stack.db.pool)
    .await
    .unwrap();
    let kinds: Vec<_> = rows
        .iter()
        .map(|(kind, version, ..)| (*version, kind.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            (1, "payment_intent.created"),
            (2, "payment_intent.processing"),
            (3, "payment_intent.payment_failed"),
            (4, "payment_intent.processing"),
            (5, "payment_intent.succeeded"),
        ]
    );
    let last: serde_json::Value = serde_json::from_str(&rows[4].2).unwrap();
    assert_eq!(last, paid.json, "the event shows what the client was shown");
    assert_eq!(rows[4].3.as_deref(), Some("k-1"));
    assert_eq!(stack.db.int("SELECT version FROM pay_intents").await, 5);
}

async fn a_silent_channel_is_no_longer_asked(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([const { Next::Silent }; 5]);
    let body = format!("{CREATE}&confirm=true");
    for n in 0..5 {
        let key = format!("k-{n}");
        let reply = stack
            .api
            .post_with_key("/v1/payment_intents", &body, &key)
            .await;
        assert_eq!(reply.text("status"), "processing");
    }
    let refused = stack.api.post("/v1/payment_intents", &body).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (503, "channel_unavailable")
    );
    assert!(refused.header("retry-after").is_some());
    assert_eq!(stack.channel.charges(), 5);
    assert_eq!(stack.db.count("pay_intents").await, 5, "nothing written");

    let replayed = stack
        .api
        .post_with_key("/v1/payment_intents", &body, "k-0")
        .await;
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    stack.assert_sound().await;
}

async fn eventually(is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen within 5 s");
}
