//! What Stripe's SDKs read and check: objects, expansions, versions, codes.

use axum::body::Body;
use serde_json::Value;

use crate::support::{Db, Next, Stack, on_both_engines};

on_both_engines!(
    a_token_becomes_a_method_of_its_own,
    what_the_sdks_check_is_checked,
    a_version_is_a_version,
    fifty_metadata_values_in_chinese_fit,
    an_intent_has_every_field_the_sdks_read,
);

const PATH: &str = "/v1/payment_intents";
const BODY: &str = "amount=1999&currency=usd&payment_method=pm_card_visa";

/// Broke: `payment_method` was the token, `automatic_payment_methods` null though asked for, and what was declined half an object.
async fn a_token_becomes_a_method_of_its_own(db: Db) {
    let stack = Stack::new(db).await;
    let body = format!("{BODY}&automatic_payment_methods[enabled]=true");
    let made = stack.api.post(PATH, &body).await;
    let automatic = &made.json["automatic_payment_methods"];
    assert_eq!(automatic["enabled"], true);
    assert_eq!(automatic["allow_redirects"], "always");
    let method = made.text("payment_method").to_owned();
    assert!(
        method.starts_with("pm_") && !method.starts_with("pm_card"),
        "{method}"
    );
    // The method is the intent's own: good there, unknown elsewhere.
    let other = stack.api.post(PATH, "amount=5&currency=usd").await;
    let confirm = |of: &crate::support::Reply| format!("{PATH}/{}/confirm", of.text("id"));
    let form = format!("payment_method={method}&expand[]=payment_method");
    let wrong = stack.api.post(&confirm(&other), &form).await;
    assert_eq!(
        (wrong.status, wrong.error_code()),
        (400, "resource_missing")
    );
    let right = stack.api.post_with_key(&confirm(&made), &form, "k").await;
    assert_eq!(right.text("status"), "succeeded");
    assert_eq!(right.json["payment_method"]["id"], method.as_str());
    assert_eq!(right.json["payment_method"]["card"]["brand"], "visa");
    let again = stack.api.post_with_key(&confirm(&made), &form, "k").await;
    assert_eq!(again.json, right.json);
    let path = format!("{PATH}/{}", made.text("id"));
    assert_eq!(stack.api.get(&path).await.text("payment_method"), method);

    stack.channel.plan([Next::Decline]);
    let declined = "amount=1999&currency=usd&payment_method=pm_card_chargeDeclined&confirm=true";
    let reply = stack.api.post(PATH, declined).await;
    assert_eq!(reply.status, 402);
    let error = &reply.json["error"];
    for method in [
        &error["payment_method"],
        &error["payment_intent"]["last_payment_error"]["payment_method"],
    ] {
        assert_eq!(method["object"], "payment_method");
        assert!(method["billing_details"]["address"].is_object(), "{method}");
        assert!(method["card"]["last4"].is_string(), "{method}");
    }
    assert_eq!(
        error["doc_url"],
        "https://stripe.com/docs/error-codes/card-declined"
    );
}

async fn what_the_sdks_check_is_checked(db: Db) {
    let stack = Stack::new(db).await;
    for (parameter, param) in [
        ("receipt_email=nobody", "receipt_email"),
        ("receipt_email=a%40b", "receipt_email"),
        ("receipt_email=a+b%40c.example", "receipt_email"),
        ("return_url=nowhere", "return_url"),
        ("return_url=%2Frelative", "return_url"),
        ("statement_descriptor=12345", "statement_descriptor"),
        (
            "statement_descriptor_suffix=%3Cb%3E",
            "statement_descriptor_suffix",
        ),
        ("expand[]=nonsense", "expand"),
        ("expand[]=data.payment_method", "expand"),
    ] {
        let reply = stack.api.post(PATH, &format!("{BODY}&{parameter}")).await;
        assert_eq!(reply.status, 400, "{parameter}: {}", reply.json);
        assert_eq!(reply.json["error"]["param"], param, "{parameter}");
    }
    for fine in [
        "receipt_email=a.b%2Bc%40d.example",
        "return_url=shop%3A%2F%2Fpaid",
        "statement_descriptor=Shoes+42",
        "expand[]=latest_charge&expand[]=payment_method",
    ] {
        let reply = stack.api.post(PATH, &format!("{BODY}&{fine}")).await;
        assert_eq!(reply.status, 200, "{fine}: {}", reply.json);
    }
    let list = stack
        .api
        .get(&format!("{PATH}?expand[]=data.payment_method&limit=1"))
        .await;
    let body = format!("{BODY}&confirm=true&expand[]=latest_charge&expand[]=payment_method");
    let paid = stack.api.post(PATH, &body).await;
    assert_eq!(paid.json["latest_charge"]["paid"], true, "{}", paid.json);
    assert_eq!(
        paid.json["latest_charge"]["payment_intent"],
        paid.json["id"]
    );
    assert!(
        paid.json.get("data").is_none(),
        "no field that the object has not"
    );
    let search = stack.api.get(&format!("{PATH}/search?query=x")).await;
    assert_eq!(search.status, 404);
    assert!(
        search.json["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Unrecognized")
    );
    assert_eq!(
        list.json["data"][0]["payment_method"]["object"],
        "payment_method"
    );
}

async fn a_version_is_a_version(db: Db) {
    let stack = Stack::new(db).await;
    for (version, status) in [
        ("2026-06-24.dahlia", 200),
        ("2020-08-27", 200),
        ("latest", 400),
        ("2026-06", 400),
        ("2026-06-24.", 400),
    ] {
        let request = stack
            .api
            .request("GET", PATH)
            .header("stripe-version", version);
        let reply = stack.api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, status, "{version}");
        let told = reply.header("stripe-version");
        assert_eq!(told == Some(version), status == 200, "{version}: {told:?}");
    }
    // Who names none is told which one is spoken.
    assert!(stack.api.get(PATH).await.header("stripe-version").is_some());
}

async fn fifty_metadata_values_in_chinese_fit(db: Db) {
    let stack = Stack::new(db).await;
    let word = "%E7%A7%92".repeat(500);
    let metadata: Vec<String> = (0..50)
        .map(|at| format!("metadata[k{at}]={word}"))
        .collect();
    let reply = stack
        .api
        .post(PATH, &format!("{BODY}&{}", metadata.join("&")))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(
        reply.json["metadata"]["k49"]
            .as_str()
            .unwrap()
            .chars()
            .count(),
        500
    );
}

async fn an_intent_has_every_field_the_sdks_read(db: Db) {
    let stack = Stack::new(db).await;
    let request = stack
        .api
        .request("POST", PATH)
        .header("stripe-version", "2026-06-24.dahlia")
        .body(Body::from(format!(
            "{BODY}&description=a+bag&receipt_email=a%40b.example&expand[]=latest_charge"
        )))
        .unwrap();
    let reply = stack.api.send(request).await;
    assert_eq!(reply.status, 200, "{}", reply.json);
    assert_eq!(reply.header("stripe-version"), Some("2026-06-24.dahlia"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let object = reply.json.as_object().unwrap();
    for field in [
        "amount_capturable",
        "amount_details",
        "application",
        "application_fee_amount",
        "automatic_payment_methods",
        "canceled_at",
        "cancellation_reason",
        "customer",
        "last_payment_error",
        "latest_charge",
        "next_action",
        "on_behalf_of",
        "payment_method_options",
        "processing",
        "review",
        "setup_future_usage",
        "shipping",
        "source",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "transfer_data",
        "transfer_group",
    ] {
        assert!(object.contains_key(field), "{field}");
    }
    let id = reply.text("id");
    assert!(id.starts_with("pi_"));
    assert!(
        reply
            .text("client_secret")
            .starts_with(&format!("{id}_secret_"))
    );
    for (field, value) in [
        ("object", Value::from("payment_intent")),
        ("amount", 1999.into()),
        ("amount_received", 0.into()),
        ("currency", "usd".into()),
        ("created", 1_760_000_000.into()),
        ("livemode", false.into()),
        ("capture_method", "automatic".into()),
        ("confirmation_method", "automatic".into()),
        ("description", "a bag".into()),
        ("receipt_email", "a@b.example".into()),
        ("status", "requires_confirmation".into()),
    ] {
        assert_eq!(object[field], value, "{field}");
    }
}
