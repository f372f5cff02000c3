//! Order paid ⇔ money posted: the saga with what it pays for. INV-PAY-3.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{Db, Next, Stack, on_both_engines};

on_both_engines!(
    paying_marks_the_order_paid,
    a_decline_frees_the_order_for_another_intent,
    an_order_released_while_the_channel_was_thinking_gets_its_money_back_once,
    a_late_refund_the_channel_ignores_is_tried_until_it_is_done,
    a_charge_has_one_refund_of_late_money_and_room_for_others,
    a_released_order_is_not_charged,
    a_paid_order_is_not_charged_again,
    an_order_in_another_payment_is_not_charged,
    the_amount_must_be_the_orders,
    an_unknown_order_is_refused_and_a_late_one_asked_for_again,
    canceling_an_intent_leaves_the_order_to_others,
    two_intents_race_for_one_order_and_one_pays,
);

async fn paying_marks_the_order_paid(db: Db) {
    let stack = Stack::new(db).await;
    let id = stack.intent_for("ord_1").await;
    assert_eq!(stack.shop.status("ord_1").await, "reserved");
    let paid = stack.confirm(&id).await;
    assert_eq!(paid.text("status"), "succeeded");
    assert_eq!(paid.json["metadata"]["order"], "ord_1");
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    assert_eq!(stack.merchant_money().await, (1999, 0));
    stack.assert_sound().await;
}

async fn a_decline_frees_the_order_for_another_intent(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::Decline]);
    let id = stack.intent_for("ord_1").await;
    assert_eq!(stack.confirm(&id).await.status, 402);
    assert_eq!(stack.shop.status("ord_1").await, "reserved");

    let body =
        "amount=1999&currency=usd&payment_method=pm_card_visa&confirm=true&metadata[order]=ord_1";
    let paid = stack.api.post("/v1/payment_intents", body).await;
    assert_eq!(paid.text("status"), "succeeded");
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    stack.assert_sound().await;
}

async fn an_order_released_while_the_channel_was_thinking_gets_its_money_back_once(db: Db) {
    let stack = Stack::new(db).await;
    let id = stack.intent_for("ord_1").await;
    stack.channel.close();
    let confirming = {
        let (api, path) = (
            stack.api.clone(),
            format!("/v1/payment_intents/{id}/confirm"),
        );
        tokio::spawn(async move { api.post_with_key(&path, "", "k").await })
    };
    charge_began(&stack).await;
    assert_eq!(stack.shop.status("ord_1").await, "paying");
    stack.shop.release("ord_1").await;
    stack.channel.open();

    let reply = confirming.await.unwrap();
    assert_eq!((reply.status, reply.error_code()), (400, "order_released"));
    let intent = &reply.json["error"]["payment_intent"];
    assert_eq!(intent["status"], "canceled");
    assert_eq!(intent["cancellation_reason"], "automatic");
    assert_eq!(intent["amount_received"], 0);

    stack.advance(3_600_000);
    stack.resolve().await;
    assert_eq!(stack.channel.refunds(), 1);
    assert_eq!(stack.channel.holds(), 0);
    assert_eq!(stack.merchant_money().await, (0, 0));
    assert_eq!(stack.shop.status("ord_1").await, "released");
    stack.assert_sound().await;

    let path = format!("/v1/payment_intents/{id}/confirm");
    let replayed = stack.api.post_with_key(&path, "", "k").await;
    assert_eq!(replayed.json, reply.json);
    assert_eq!(stack.channel.charges(), 1);
}

async fn a_late_refund_the_channel_ignores_is_tried_until_it_is_done(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan_refunds([Next::Silent, Next::Silent]);
    let id = stack.intent_for("ord_1").await;
    stack.channel.close();
    let confirming = {
        let (api, path) = (
            stack.api.clone(),
            format!("/v1/payment_intents/{id}/confirm"),
        );
        tokio::spawn(async move { api.post(&path, "").await })
    };
    charge_began(&stack).await;
    stack.shop.release("ord_1").await;
    stack.channel.open();
    assert_eq!(confirming.await.unwrap().error_code(), "order_released");

    // The channel still has the money, and so do the books: posted, and pending on its way out.
    assert_eq!(stack.channel.holds(), 1999);
    assert_eq!(stack.merchant_money().await, (1999, -1999));
    stack.assert_sound().await;

    for _ in 0..3 {
        stack.advance(3_600_000);
        stack.resolve().await;
    }
    assert_eq!(stack.channel.refunds(), 1);
    assert_eq!(stack.channel.holds(), 0);
    assert_eq!(stack.merchant_money().await, (0, 0));
    stack.assert_sound().await;
}

async fn a_charge_has_one_refund_of_late_money_and_room_for_others(db: Db) {
    let stack = Stack::new(db).await;
    stack.channel.plan([Next::TakeSilently]);
    let id = stack.intent_for("ord_1").await;
    stack.confirm(&id).await;
    stack.shop.release("ord_1").await;
    stack.advance(1_000);
    stack.resolve().await;
    let (refund, transfer): (String, String) =
        sqlx::query_as("SELECT id, transfer FROM pay_refunds")
            .fetch_one(&stack.db.pool)
            .await
            .unwrap();
    assert!(refund.starts_with("re_"), "{refund}");
    assert_eq!(transfer, format!("refund:{refund}"));

    let another = async |id: &str, purpose: &str| {
        sqlx::query(
            "INSERT INTO pay_refunds (id, charge, intent, purpose, transfer, status, channel, payment_method, amount_minor, currency, tries, next_try_ms, created_ms)
             SELECT $1, charge, intent, $2, 'refund:' || $1, 'succeeded', channel, payment_method, 1, currency, 0, 0, 0 FROM pay_refunds WHERE purpose = 'late'",
        )
        .bind(id)
        .bind(purpose)
        .execute(&stack.db.pool)
        .await
    };
    assert!(another("re_2", "late").await.is_err());
    another("re_3", "requested").await.unwrap();
    another("re_4", "requested").await.unwrap();
    assert_eq!(stack.db.count("pay_refunds").await, 3);
}

async fn a_released_order_is_not_charged(db: Db) {
    let stack = Stack::new(db).await;
    let id = stack.intent_for("ord_1").await;
    stack.shop.release("ord_1").await;
    let refused = stack.confirm(&id).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (400, "order_released")
    );
    assert_eq!(
        refused.json["error"]["payment_intent"]["status"],
        "requires_confirmation"
    );
    assert_eq!(stack.channel.charges(), 0);
    assert_eq!(stack.db.count("pay_charges").await, 0);
}

async fn a_paid_order_is_not_charged_again(db: Db) {
    let stack = Stack::new(db).await;
    let id = stack.intent_for("ord_1").await;
    assert_eq!(stack.confirm(&id).await.status, 200);
    let body =
        "amount=1999&currency=usd&payment_method=pm_card_visa&confirm=true&metadata[order]=ord_1";
    let refused = stack
        .api
        .post_with_key("/v1/payment_intents", body, "k")
        .await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (400, "order_already_paid")
    );
    let replayed = stack
        .api
        .post_with_key("/v1/payment_intents", body, "k")
        .await;
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    assert_eq!(replayed.json, refused.json);
    assert_eq!(stack.channel.charges(), 1);
    assert_eq!(stack.db.count("pay_intents").await, 1);
    stack.assert_sound().await;
}

async fn an_order_in_another_payment_is_not_charged(db: Db) {
    let stack = Stack::new(db).await;
    let id = stack.intent_for("ord_1").await;
    stack.channel.plan([Next::Silent]);
    assert_eq!(stack.confirm(&id).await.text("status"), "processing");
    let body =
        "amount=1999&currency=usd&payment_method=pm_card_visa&confirm=true&metadata[order]=ord_1";
    let refused = stack
        .api
        .post_with_key("/v1/payment_intents", body, "k")
        .await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (409, "order_in_payment")
    );
    assert_eq!(stack.channel.charges(), 1);

    // The refusal was not kept: once the first has failed, the same request pays.
    stack.advance(60_000);
    stack.resolve().await;
    let paid = stack
        .api
        .post_with_key("/v1/payment_intents", body, "k")
        .await;
    assert_eq!(paid.text("status"), "succeeded");
    stack.assert_sound().await;
}

async fn the_amount_must_be_the_orders(db: Db) {
    let stack = Stack::new(db).await;
    stack.shop.add("ord_1", 1999).await;
    for body in [
        "amount=1998&currency=usd&metadata[order]=ord_1",
        "amount=1999&currency=eur&metadata[order]=ord_1",
    ] {
        let refused = stack.api.post("/v1/payment_intents", body).await;
        assert_eq!(
            (refused.status, refused.error_code()),
            (400, "amount_mismatch")
        );
        assert_eq!(refused.json["error"]["param"], "amount");
    }
    assert_eq!(stack.db.count("pay_intents").await, 0);
}

async fn an_unknown_order_is_refused_and_a_late_one_asked_for_again(db: Db) {
    let stack = Stack::new(db).await;
    let body = "amount=1999&currency=usd&metadata[order]=ord_1";
    let refused = stack.api.post("/v1/payment_intents", body).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (400, "resource_missing")
    );
    assert_eq!(refused.json["error"]["param"], "metadata[order]");

    stack.shop.is_behind.store(true, Ordering::Relaxed);
    let later = stack.api.post("/v1/payment_intents", body).await;
    assert_eq!((later.status, later.error_code()), (409, "order_not_ready"));
    assert_eq!(later.header("stripe-should-retry"), Some("true"));

    stack.shop.is_behind.store(false, Ordering::Relaxed);
    stack.shop.add("ord_1", 1999).await;
    assert_eq!(
        stack.api.post("/v1/payment_intents", body).await.status,
        200
    );
}

async fn canceling_an_intent_leaves_the_order_to_others(db: Db) {
    let stack = Stack::new(db).await;
    let id = stack.intent_for("ord_1").await;
    let path = format!("/v1/payment_intents/{id}/cancel");
    assert_eq!(stack.api.post(&path, "").await.text("status"), "canceled");
    assert_eq!(stack.shop.status("ord_1").await, "reserved");
}

async fn two_intents_race_for_one_order_and_one_pays(db: Db) {
    let stack = Stack::new(db).await;
    stack.shop.add("ord_1", 1999).await;
    let body =
        "amount=1999&currency=usd&payment_method=pm_card_visa&confirm=true&metadata[order]=ord_1";
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let api = stack.api.clone();
        tries.spawn(async move { api.post("/v1/payment_intents", body).await });
    }
    let replies = tries.join_all().await;
    assert_eq!(replies.iter().filter(|r| r.status == 200).count(), 1);
    for reply in replies.iter().filter(|r| r.status != 200) {
        assert!(
            matches!(
                reply.error_code(),
                "order_in_payment" | "order_already_paid" | "lock_timeout"
            ),
            "{}",
            reply.json
        );
    }
    assert_eq!(stack.channel.holds(), 1999);
    assert_eq!(stack.merchant_money().await, (1999, 0));
    assert_eq!(stack.shop.status("ord_1").await, "paid");
    stack.assert_sound().await;
}

async fn charge_began(stack: &Stack) {
    for _ in 0..1000 {
        if stack.channel.charges() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the channel was not asked within 5 s");
}
