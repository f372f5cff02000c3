//! The wire: keys, forms, errors, shapes. Whatever comes in, the answer is Stripe's JSON and never a 500.

use axum::body::Body;
use http::header::AUTHORIZATION;

use crate::support::{Db, Stack, on_both_engines};

on_both_engines!(
    without_the_key_nobody_gets_in,
    bad_input_is_refused_by_name_and_changes_nothing,
    hostile_paths_and_methods_get_an_error_body,
    other_methods_get_stripes_error_and_no_list_of_methods,
    a_slash_at_the_end_changes_nothing,
    bodies_too_large_or_of_another_kind_are_refused,
    card_numbers_are_neither_taken_nor_kept,
    a_card_number_is_refused_wherever_it_stands,
    a_secret_key_among_the_parameters_is_refused,
    a_client_secret_opens_its_own_intent_only,
    an_account_of_nobody_is_not_charged,
    strange_but_valid_text_survives,
);

const PATH: &str = "/v1/payment_intents";
const BODY: &str = "amount=1999&currency=usd&payment_method=pm_card_visa";

async fn without_the_key_nobody_gets_in(db: Db) {
    let stack = Stack::new(db).await;
    for header in [
        None,
        Some("Bearer sk_test_wrong"),
        Some("Bearer"),
        Some("Basic ?"),
    ] {
        let mut request = http::Request::builder().method("POST").uri(PATH);
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let reply = stack
            .api
            .send(request.body(Body::from(BODY)).unwrap())
            .await;
        assert_eq!(
            (reply.status, reply.error_type()),
            (401, "invalid_request_error"),
            "{header:?}"
        );
        assert!(reply.header("request-id").unwrap().starts_with("req_"));
        assert!(!reply.json.to_string().contains("wrong"));
    }
    assert_eq!(stack.db.count("pay_intents").await, 0);
}

async fn bad_input_is_refused_by_name_and_changes_nothing(db: Db) {
    let stack = Stack::new(db).await;
    let cases = [
        ("", "currency", "parameter_missing"),
        ("currency=usd", "amount", "parameter_missing"),
        (
            "amount=0&currency=usd",
            "amount",
            "parameter_invalid_integer",
        ),
        (
            "amount=-1&currency=usd",
            "amount",
            "parameter_invalid_integer",
        ),
        (
            "amount=9223372036854775807&currency=usd",
            "amount",
            "amount_too_large",
        ),
        (
            "amount=9223372036854775808&currency=usd",
            "amount",
            "parameter_invalid_integer",
        ),
        (
            "amount=1e3&currency=usd",
            "amount",
            "parameter_invalid_integer",
        ),
        (
            "amount=100&currency=xxx",
            "currency",
            "currency_not_supported",
        ),
        (
            "amount=100&currency=aed",
            "currency",
            "currency_not_supported",
        ),
        ("amount=100&currency=usd&foo=1", "foo", "parameter_unknown"),
        (
            "amount=100&currency=usd&metadata=x",
            "metadata",
            "parameter_invalid",
        ),
        (
            "amount=100&currency=usd&metadata[order",
            "metadata",
            "parameter_invalid",
        ),
        (
            "amount=100&currency=usd&payment_method=pm_nobody",
            "payment_method",
            "resource_missing",
        ),
        (
            "amount=100&currency=usd&payment_method=visa",
            "payment_method",
            "resource_missing",
        ),
        (
            "amount=100&currency=usd&customer=cus_1",
            "customer",
            "parameter_unknown",
        ),
    ];
    for (body, param, code) in cases {
        let reply = stack.api.post_with_key(PATH, body, "k").await;
        assert_eq!(
            (reply.status, reply.error_type(), reply.error_code()),
            (400, "invalid_request_error", code),
            "{body}: {}",
            reply.json
        );
        assert_eq!(reply.json["error"]["param"], param, "{body}");
        assert_eq!(reply.header("stripe-should-retry"), Some("false"));
    }
    for body in [
        "amount=%zz",
        "amount=%ff",
        "metadata[a]=%00&amount=1&currency=usd",
    ] {
        let reply = stack.api.post(PATH, body).await;
        assert_eq!(
            (reply.status, reply.error_code()),
            (400, "malformed_body"),
            "{body}"
        );
    }
    for table in [
        "pay_intents",
        "pay_events",
        "pay_idempotency",
        "pay_transfers",
    ] {
        assert_eq!(stack.db.count(table).await, 0, "{table}");
    }
}

async fn hostile_paths_and_methods_get_an_error_body(db: Db) {
    let stack = Stack::new(db).await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v2/core/events", 404),
        ("GET", "/v1/payment_intentsx", 404),
        ("DELETE", "/v1/payment_intents/pi_1", 404),
        ("PUT", "/v1/payment_intents", 404),
        ("GET", "/v1/payment_intents/pi_1", 404),
        ("GET", "/v1/payment_intents/pi_1/confirm", 404),
        ("POST", "/v1/payment_intents/pi_1/capture", 404),
        ("POST", "/v1/payment_intents/pi_1/confirm/x", 404),
        ("GET", "/v1/payment_intents/pi_%00", 404),
        ("GET", "/v1/payment_intents/%ff", 404),
        ("GET", "/v1/payment_intents/'%20OR%201=1", 404),
        ("GET", "/v1/payment_intents//", 404),
        ("POST", "/v1/payment_intents/pi_1/confirm", 404),
        ("POST", "/v1/payment_intents/pi_1/cancel", 404),
        ("GET", "/v1/payment_intents?limit=0", 400),
        ("GET", "/v1/payment_intents?limit=x", 400),
        ("GET", "/v1/payment_intents?limit=%zz", 400),
        ("GET", "/v1/payment_intents?starting_after=pi_none", 400),
        ("GET", "/v1/payment_intents?foo=1", 400),
        (
            "GET",
            "/v1/payment_intents?created[gt]=9223372036854775807",
            200,
        ),
        (
            "GET",
            "/v1/payment_intents?created[lt]=-9223372036854775808",
            200,
        ),
    ] {
        let request = stack.api.request(method, path).body(Body::empty()).unwrap();
        let reply = stack.api.send(request).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.json);
        if status != 200 {
            assert_eq!(reply.error_type(), "invalid_request_error");
            assert!(reply.json["error"]["message"].is_string());
        }
    }
}

async fn other_methods_get_stripes_error_and_no_list_of_methods(db: Db) {
    let stack = Stack::new(db).await;
    for path in [
        PATH,
        "/v1/payment_intents/pi_1",
        "/v1/payment_intents/pi_1/confirm",
    ] {
        for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request = stack.api.request(method, path).body(Body::empty()).unwrap();
            let reply = stack.api.send(request).await;
            assert_eq!(reply.status, 404, "{method} {path}");
            let message = format!("Unrecognized request URL ({method}: {path}).");
            assert_eq!(reply.json["error"]["message"], message);
            assert_eq!(reply.header("allow"), None);
            assert!(reply.header("request-id").is_some());
        }
    }
}

async fn a_slash_at_the_end_changes_nothing(db: Db) {
    let stack = Stack::new(db).await;
    let made = stack.api.post(&format!("{PATH}/"), BODY).await;
    assert_eq!(made.status, 200, "{}", made.json);
    let one = format!("{PATH}/{}/", made.text("id"));
    assert_eq!(stack.api.get(&one).await.json, made.json);
    let list = stack.api.get(&format!("{PATH}/?limit=1")).await;
    assert_eq!(list.json["data"][0], made.json);
    let paid = stack.api.post(&format!("{one}confirm/"), "").await;
    assert_eq!(paid.text("status"), "succeeded");
    // An empty id is the id of no intent.
    let nobody = stack.api.post(&format!("{PATH}//confirm"), "").await;
    assert_eq!(
        (nobody.status, nobody.error_code()),
        (404, "resource_missing")
    );
}

async fn bodies_too_large_or_of_another_kind_are_refused(db: Db) {
    let stack = Stack::new(db).await;
    let large = format!("amount=1&currency=usd&description={}", "x".repeat(600_000));
    let reply = stack.api.post(PATH, &large).await;
    assert_eq!((reply.status, reply.error_code()), (413, "body_too_large"));

    let request = stack
        .api
        .request("POST", PATH)
        .header("content-type", "application/json")
        .body(Body::from(r#"{"amount": 100, "currency": "usd"}"#))
        .unwrap();
    let reply = stack.api.send(request).await;
    assert_eq!((reply.status, reply.error_code()), (400, "malformed_body"));
    assert_eq!(stack.db.count("pay_intents").await, 0);
}

/// Numbers that could be cards: thirteen to nineteen digits with a right check digit.
async fn card_numbers_are_neither_taken_nor_kept(db: Db) {
    let stack = Stack::new(db).await;
    let card = "4242424242424242";
    for body in [
        format!("{BODY}&payment_method_data[type]=card&payment_method_data[card][number]={card}"),
        format!("amount=1&currency=usd&payment_method={card}"),
        format!("amount=1&currency=usd&card[number]={card}"),
        format!("amount=1&currency=usd&currency={card}&currency=usd&source={card}"),
    ] {
        let reply = stack.api.post_with_key(PATH, &body, "k").await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(!reply.json.to_string().contains(card), "{}", reply.json);
    }
    let made = stack.api.post(PATH, BODY).await;
    let path = format!("{PATH}/{}/confirm", made.text("id"));
    let reply = stack
        .api
        .post(&path, &format!("payment_method_data[card][number]={card}"))
        .await;
    assert_eq!(
        (reply.status, reply.error_code()),
        (400, "raw_card_data_refused")
    );
    assert_eq!(stack.db.count("pay_idempotency").await, 0);
    assert_eq!(stack.db.count("pay_intents").await, 1);
}

/// Broke: a number in metadata or a description went to the database, one in another parameter came back in the error.
async fn a_card_number_is_refused_wherever_it_stands(db: Db) {
    let stack = Stack::new(db).await;
    let card = "4242 4242 4242 4242";
    let written = card.replace(' ', "+");
    for parameter in [
        "metadata[note]",
        "description",
        "receipt_email",
        "statement_descriptor",
        "return_url",
        "client_secret",
        "nonsense",
        "currency",
    ] {
        let body = format!("{BODY}&{parameter}={written}").replacen("currency=usd&", "", 1);
        let reply = stack.api.post_with_key(PATH, &body, "k").await;
        assert_eq!(reply.error_code(), "raw_card_data_refused", "{parameter}");
        assert!(!reply.json.to_string().contains("4242"), "{}", reply.json);
    }
    let plain = card.replace(' ', "");
    let of_key = format!("{BODY}&metadata[{plain}]=1");
    let replies = [
        stack.api.post(PATH, &of_key).await,
        stack.api.post_with_key(PATH, BODY, &plain).await,
        stack.api.get(&format!("{PATH}/{plain}")).await,
        stack.api.get(&format!("{PATH}?limit={plain}")).await,
    ];
    for reply in replies {
        assert_eq!(reply.error_code(), "raw_card_data_refused");
        assert!(!reply.json.to_string().contains(&plain), "{}", reply.json);
    }
    assert_eq!(stack.db.count("pay_intents").await, 0);
    assert_eq!(stack.db.count("pay_idempotency").await, 0);
}

/// Broke: the secret key itself, sent as data, was kept and shown.
async fn a_secret_key_among_the_parameters_is_refused(db: Db) {
    let stack = Stack::new(db).await;
    let key = "sk_live_0123456789abcdefABCDEF";
    for parameter in ["description", "metadata[key]", "receipt_email"] {
        let reply = stack
            .api
            .post(PATH, &format!("{BODY}&{parameter}={key}"))
            .await;
        assert_eq!(reply.error_code(), "secret_key_refused", "{parameter}");
        assert!(!reply.json.to_string().contains(key));
    }
    let reply = stack.api.post_with_key(PATH, BODY, key).await;
    assert_eq!(reply.status, 400);
    assert_eq!(stack.db.count("pay_intents").await, 0);
    assert_eq!(stack.db.count("pay_idempotency").await, 0);
}

/// Broke: the secret of one intent confirmed another, which was charged, and a wrong one was ignored on retrieve.
async fn a_client_secret_opens_its_own_intent_only(db: Db) {
    let stack = Stack::new(db).await;
    let (one, other) = (
        stack.api.post(PATH, BODY).await,
        stack.api.post(PATH, BODY).await,
    );
    let path = format!("{PATH}/{}", other.text("id"));
    let confirm = format!("{path}/confirm");
    let form = |of: &crate::support::Reply| format!("client_secret={}", of.text("client_secret"));
    let wrong = stack.api.post(&confirm, &form(&one)).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.json["error"]["param"], "client_secret");
    assert_eq!(stack.db.count("pay_charges").await, 0);
    let read = stack.api.get(&format!("{path}?{}", form(&one))).await;
    assert_eq!(read.status, 400);
    let read = stack.api.get(&format!("{path}?{}", form(&other))).await;
    assert_eq!(read.status, 200);
    let right = stack.api.post(&confirm, &form(&other)).await;
    assert_eq!(right.text("status"), "succeeded");
}

/// Broke: the header was ignored and the default account charged.
async fn an_account_of_nobody_is_not_charged(db: Db) {
    let stack = Stack::new(db).await;
    let request = stack
        .api
        .request("POST", PATH)
        .header("stripe-account", "acct_nobody")
        .body(Body::from(format!("{BODY}&confirm=true")))
        .unwrap();
    let reply = stack.api.send(request).await;
    assert_eq!((reply.status, reply.error_code()), (403, "account_invalid"));
    assert_eq!(stack.db.count("pay_intents").await, 0);
}

async fn strange_but_valid_text_survives(db: Db) {
    let stack = Stack::new(db).await;
    let body = "amount=100&currency=usd&metadata[%E5%90%8D]=%F0%9F%8E%92+%27%22%3B--%0A&description=%25_%5C";
    let made = stack.api.post(PATH, body).await;
    let shown = stack.api.get(&format!("{PATH}/{}", made.text("id"))).await;
    assert_eq!(shown.json["metadata"]["名"], "🎒 '\";--\n");
    assert_eq!(shown.json["description"], "%_\\");
}
