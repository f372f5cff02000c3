//! Metadata of a purchase: what is taken, what is refused, and that all answers give it back.

use stock::metadata::{MAX_BYTES, MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_CHARS};

use super::*;

/// A shop that takes "4242" for a card number, and "sk" for a key.
async fn careful_shop() -> Shop {
    let shop = shop().await;
    let find_secret: FindSecret = |text| match text {
        _ if text.contains("4242") => Some(Secret::CardNumber),
        "sk" => Some(Secret::Key),
        _ => None,
    };
    let identity = Identity::Header(http::HeaderName::from_static("x-buyer-id"));
    let (waiting, draining) = (WaitingConfig::default(), CancellationToken::new());
    let engine = shop.parts.engine.clone();
    Shop {
        api: router_with(engine, identity, waiting, draining, None, find_secret),
        ..shop
    }
}

impl Shop {
    async fn buy_with(&self, buyer: &str, key: &str, metadata: Value) -> (StatusCode, Value) {
        let body = json!({"sku": "shoe", "metadata": metadata}).to_string();
        let (status, document, _) = self
            .send(post("spring", Some(buyer), Some(key), &body))
            .await;
        (status, document)
    }
}

#[tokio::test]
async fn what_a_purchase_brings_comes_back_with_its_order() {
    let shop = careful_shop().await;
    let sent = json!({"locale": "de_DE", "cart": "c 1 \"ü\""});
    let (status, order) = shop.buy_with("ann", "k1", sent.clone()).await;
    assert_eq!((status, &order["metadata"]), (StatusCode::CREATED, &sent));
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    let poll = "/v1/sales/spring/orders?sku=shoe&request_id=k1";
    for settled in [false, true] {
        if settled {
            shop.settle().await;
        }
        let (status, again) = shop.buy_with("ann", "k1", sent.clone()).await;
        assert_eq!((status, &again["metadata"]), (StatusCode::OK, &sent));
        for path in [path.as_str(), poll] {
            let (_, found, _) = shop.send(get(path, "ann")).await;
            assert_eq!(found["metadata"], sent, "{path}, settled: {settled}");
        }
    }
    let delete = Request::delete(&path).header("x-buyer-id", "ann");
    let (_, cancelled, _) = shop.send(delete.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (&cancelled["status"], &cancelled["metadata"]),
        (&json!("released"), &sent)
    );
}

#[tokio::test]
async fn an_order_without_metadata_shows_none() {
    let shop = careful_shop().await;
    let (_, order) = shop.buy("ann", "k1", 1).await;
    assert_eq!(order.get("metadata"), None);
    for nothing in [json!({}), Value::Null] {
        let (status, again) = shop.buy_with("ann", "k1", nothing).await;
        assert_eq!((status, &again["id"]), (StatusCode::OK, &order["id"]));
    }
    shop.settle().await;
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    let (_, found, _) = shop.send(get(&path, "ann")).await;
    assert_eq!((&found["id"], found.get("metadata")), (&order["id"], None));
}

/// It is part of what the request asks for.
#[tokio::test]
async fn the_same_key_with_other_metadata_is_a_conflict() {
    let shop = careful_shop().await;
    let (_, order) = shop
        .buy_with("ann", "k1", json!({"a": "1", "b": "2"}))
        .await;
    for other in [json!({"a": "1"}), json!({"a": "1", "b": "3"}), json!({})] {
        let (status, refused) = shop.buy_with("ann", "k1", other).await;
        assert_eq!(
            (status.as_u16(), &refused["code"]),
            (422, &json!("key_reused"))
        );
    }
    let body = r#"{"metadata": { "b": "2", "\u0061": "1" }, "sku": "shoe"}"#;
    let (status, again, _) = shop
        .send(post("spring", Some("ann"), Some("k1"), body))
        .await;
    assert_eq!(
        (status, &again["id"]),
        (StatusCode::OK, &order["id"]),
        "however it is spelled"
    );
}

#[tokio::test]
async fn metadata_out_of_bounds_is_refused_and_told_where() {
    let shop = careful_shop().await;
    let text = |length: usize| "ü".repeat(length);
    let keys = |count: usize| -> Value {
        (0..count)
            .map(|n| (n.to_string(), json!("x")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let long = json!({"a": "x".repeat(500), "b": "x".repeat(500), "c": "x".repeat(500), "d": "x".repeat(500), "e": "x".repeat(500)});
    let invalid = "invalid_metadata";
    for (sent, code, told) in [
        (keys(MAX_KEYS + 1), invalid, "has 21 keys; at most 20"),
        (
            json!({"": "x"}),
            invalid,
            "the key has 0 characters; allowed are 1 to 40",
        ),
        (
            json!({text(MAX_KEY_CHARS + 1): "x"}),
            invalid,
            "the key has 41 characters",
        ),
        (
            json!({"a": text(MAX_VALUE_CHARS + 1)}),
            invalid,
            r#"metadata["a"]: has 501 characters; at most 500"#,
        ),
        (long, invalid, "as JSON; at most 2048"),
        (
            json!({"a": "x\ny"}),
            invalid,
            r#"metadata["a"]: holds the control character"#,
        ),
        (
            json!({"a\u{0}": "x"}),
            invalid,
            "holds the control character",
        ),
        (
            json!({"n": 1}),
            invalid,
            r#"metadata["n"]: is a number; values must be strings"#,
        ),
        (json!({"n": null}), invalid, "is null"),
        (json!({"n": {"m": "x"}}), invalid, "is an object"),
        (
            json!([]),
            "invalid_body",
            "expected metadata to be an object of strings",
        ),
        (
            json!("x"),
            "invalid_body",
            "expected metadata to be an object of strings",
        ),
        (
            json!({"a": "no. 4242 4242"}),
            "raw_card_data_refused",
            r#"metadata["a"]: holds what looks like a card number"#,
        ),
        (
            json!({"4242": 1}),
            "raw_card_data_refused",
            "a key of metadata: holds",
        ),
        (
            json!({"a": "sk"}),
            "secret_key_refused",
            r#"metadata["a"]: holds a secret key"#,
        ),
    ] {
        let (status, refused) = shop.buy_with("ann", "k", sent.clone()).await;
        assert_eq!(
            (status.as_u16(), &refused["code"]),
            (400, &json!(code)),
            "{sent}"
        );
        let detail = refused["detail"].as_str().unwrap();
        assert!(
            detail.contains(told) && !detail.contains("4242"),
            "{sent}: {detail}"
        );
    }
    let twice = r#"{"sku": "shoe", "metadata": {"a": "1", "a": "1"}}"#;
    let (_, refused, _) = shop
        .send(post("spring", Some("ann"), Some("k"), twice))
        .await;
    assert_eq!(
        refused["detail"],
        r#"metadata["a"]: stands twice; each key may stand once"#
    );
    assert_eq!(
        shop.parts.available().await,
        3,
        "nothing was bought by any of it"
    );
}

/// PHP and Python escape each character that is not ASCII.
#[tokio::test]
async fn the_longest_metadata_fits_a_body_in_which_it_is_escaped() {
    let shop = careful_shop().await;
    let value = "ü".repeat((MAX_BYTES - 4 - 27) / 8);
    let sent = json!({"a": value, "b": value, "c": value, "d": value});
    let body = json!({"sku": "shoe", "metadata": sent}).to_string();
    let body = body.replace('ü', "\\u00fc");
    assert!(body.len() > 6_000);
    let (status, order, _) = shop
        .send(post("spring", Some("ann"), Some("k"), &body))
        .await;
    assert_eq!((status, &order["metadata"]), (StatusCode::CREATED, &sent));
}
