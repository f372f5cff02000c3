//! Idempotency keys, as Stripe has them.

use payment::Config;

use crate::support::{Db, KEY, Next, Stack, on_both_engines};

on_both_engines!(
    the_same_request_gets_the_same_answer,
    a_key_with_other_parameters_is_refused,
    a_key_is_in_use_while_its_request_is_at_work,
    concurrent_creates_with_one_key_make_one_intent,
    a_stored_decline_never_becomes_a_success,
    mistakes_are_not_stored,
    bad_keys_are_refused,
    old_answers_are_forgotten,
);

const PATH: &str = "/v1/payment_intents";
const BODY: &str = "amount=1999&currency=usd&payment_method=pm_card_visa";

async fn the_same_request_gets_the_same_answer(db: Db) {
    let stack = Stack::new(db).await;
    let first = stack.api.post_with_key(PATH, BODY, "k").await;
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(first.header("idempotency-key"), Some("k"));
    let second = stack.api.post_with_key(PATH, BODY, "k").await;
    assert_eq!((second.status, &second.json), (200, &first.json));
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_ne!(
        first.header("request-id").unwrap(),
        second.header("request-id").unwrap()
    );
    assert_eq!(stack.db.count("pay_intents").await, 1);
    assert_eq!(stack.db.count("pay_events").await, 1);
}

async fn a_key_with_other_parameters_is_refused(db: Db) {
    let stack = Stack::new(db).await;
    let first = stack.api.post_with_key(PATH, BODY, "k").await;
    for (path, body) in [
        (PATH.to_owned(), "amount=2000&currency=usd".to_owned()),
        (
            format!("{PATH}/{}/confirm", first.text("id")),
            String::new(),
        ),
    ] {
        let refused = stack.api.post_with_key(&path, &body, "k").await;
        assert_eq!(
            (refused.status, refused.error_type()),
            (400, "idempotency_error")
        );
    }
    assert_eq!(stack.channel.charges(), 0);
    assert_eq!(stack.db.count("pay_intents").await, 1);
}

async fn a_key_is_in_use_while_its_request_is_at_work(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.close();
    let body = format!("{BODY}&confirm=true");
    let first = {
        let (api, body) = (stack.api.clone(), body.clone());
        tokio::spawn(async move { api.post_with_key(PATH, &body, "k").await })
    };
    while stack.channel.charges() == 0 {
        tokio::task::yield_now().await;
    }
    let second = stack.api.post_with_key(PATH, &body, "k").await;
    assert_eq!(
        (second.status, second.error_code()),
        (409, "idempotency_key_in_use")
    );
    assert_eq!(second.header("stripe-should-retry"), Some("true"));
    stack.channel.open();
    let first = first.await.unwrap();
    let third = stack.api.post_with_key(PATH, &body, "k").await;
    assert_eq!(third.json, first.json);
    assert_eq!(stack.channel.charges(), 1);
}

async fn concurrent_creates_with_one_key_make_one_intent(db: Db) {
    let stack = Stack::new(db).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let api = stack.api.clone();
        tries.spawn(async move { api.post_with_key(PATH, BODY, "k").await });
    }
    let replies = tries.join_all().await;
    assert!(
        replies
            .iter()
            .all(|r| r.status == 200 && r.json == replies[0].json)
    );
    let fresh = replies
        .iter()
        .filter(|r| r.header("idempotent-replayed").is_none());
    assert_eq!(fresh.count(), 1);
    assert_eq!(stack.db.count("pay_intents").await, 1);
}

async fn a_stored_decline_never_becomes_a_success(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::Decline]);
    let body = format!("{BODY}&confirm=true");
    let first = stack.api.post_with_key(PATH, &body, "k").await;
    assert_eq!(first.status, 402);
    let second = stack.api.post_with_key(PATH, &body, "k").await;
    assert_eq!((second.status, &second.json), (402, &first.json));
    assert_eq!(second.header("stripe-should-retry"), Some("false"));
    assert_eq!(stack.channel.charges(), 1);
    stack.assert_sound().await;
}

async fn mistakes_are_not_stored(db: Db) {
    let stack = Stack::new(db).await;
    let wrong = stack
        .api
        .post_with_key(PATH, "amount=1999&currency=xxx", "k")
        .await;
    assert_eq!(wrong.status, 400);
    let missing = stack
        .api
        .post_with_key(&format!("{PATH}/pi_none/confirm"), "", "k")
        .await;
    assert_eq!(missing.status, 404);
    let right = stack.api.post_with_key(PATH, BODY, "k").await;
    assert_eq!(right.status, 200);
}

async fn bad_keys_are_refused(db: Db) {
    let stack = Stack::new(db).await;
    for key in ["", &"a".repeat(256), "ä"] {
        let reply = stack.api.post_with_key(PATH, BODY, key).await;
        assert_eq!(
            (reply.status, reply.error_type()),
            (400, "invalid_request_error"),
            "{key}"
        );
    }
    assert_eq!(stack.db.count("pay_intents").await, 0);
}

async fn old_answers_are_forgotten(db: Db) {
    let stack = Stack::with_config(db, Config::for_key(KEY)).await;
    stack.api.post_with_key(PATH, BODY, "old").await;
    stack.advance(24 * 3_600_000);
    stack.api.post_with_key(PATH, BODY, "new").await;
    stack.resolve().await;
    assert_eq!(stack.db.count("pay_idempotency").await, 2, "a day is kept");
    stack.advance(1);
    stack.resolve().await;
    assert_eq!(stack.db.count("pay_idempotency").await, 1);
}
