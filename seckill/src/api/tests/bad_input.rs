//! Bad input of every endpoint: a problem document each, and nothing changed.

use super::*;

#[tokio::test]
async fn bad_input_of_the_purchase_is_a_problem_and_changes_nothing() {
    let shop = shop().await;
    let ok = json!({"sku": "shoe", "quantity": 1}).to_string();
    let long = "x".repeat(256);
    let big = format!("{{\"sku\":\"{}\"}}", "x".repeat(9000));
    let spaced = "a b";
    type Case<'a> = (
        &'a str,
        Option<&'a str>,
        Option<&'a str>,
        &'a str,
        u16,
        &'a str,
    );
    let cases: Vec<Case<'_>> = vec![
        ("spring", None, Some("k"), &ok, 401, "unauthenticated"),
        ("spring", Some(""), Some("k"), &ok, 400, "invalid_request"),
        (
            "spring",
            Some(spaced),
            Some("k"),
            &ok,
            400,
            "invalid_request",
        ),
        (
            "spring",
            Some("ann"),
            None,
            &ok,
            400,
            "missing_idempotency_key",
        ),
        (
            "spring",
            Some("ann"),
            Some(&long),
            &ok,
            400,
            "invalid_request",
        ),
        ("spring", Some("ann"), Some("k"), "{", 400, "invalid_body"),
        ("spring", Some("ann"), Some("k"), "", 400, "invalid_body"),
        ("spring", Some("ann"), Some("k"), "[]", 400, "invalid_body"),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"["shoe", 1]"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            "\u{0}",
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":5}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":"1"}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":1.5}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","colour":"red"}"#,
            400,
            "invalid_body",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":0}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":-1}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":9223372036854775808}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"shoe","quantity":4294967297}"#,
            400,
            "invalid_quantity",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"hat"}"#,
            404,
            "no_such_sku",
        ),
        (
            "spring",
            Some("ann"),
            Some("k"),
            r#"{"sku":"sh oe"}"#,
            404,
            "no_such_sku",
        ),
        ("summer", Some("ann"), Some("k"), &ok, 404, "no_such_sale"),
        ("%7Bx%7D", Some("ann"), Some("k"), &ok, 404, "no_such_sale"),
        (
            "spring",
            Some("ann"),
            Some("k"),
            &big,
            413,
            "body_too_large",
        ),
    ];
    for (sale, buyer, key, body, status, code) in cases {
        let (answered, document, response) = shop.send(post(sale, buyer, key, body)).await;
        assert_eq!(
            (answered.as_u16(), document["code"].as_str()),
            (status, Some(code)),
            "{sale} {buyer:?} {key:?} {body}"
        );
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert!(
            document["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
    let mut form = post("spring", Some("ann"), Some("k"), &ok);
    form.headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(shop.send(form).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut twice = post("spring", Some("ann"), Some("k"), &ok);
    twice
        .headers_mut()
        .append("x-buyer-id", "bob".parse().unwrap());
    assert_eq!(shop.send(twice).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        shop.parts.available().await,
        3,
        "nothing was changed by any of it"
    );
}

#[tokio::test]
async fn bad_input_of_the_other_paths_is_a_problem() {
    let shop = shop().await;
    let cases = [
        ("/v1/orders/x", 404, "no_such_order"),
        (
            "/v1/orders/ord_00000000000000000000000000",
            404,
            "no_such_order",
        ),
        ("/v1/sales/none", 404, "no_such_sale"),
        ("/v1/sales/spring/orders", 400, "invalid_request"),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=a%20b",
            400,
            "invalid_request",
        ),
        (
            "/v1/sales/spring/orders?sku=hat&request_id=k",
            404,
            "no_such_sku",
        ),
        (
            "/v1/sales/none/orders?sku=shoe&request_id=k",
            404,
            "no_such_sale",
        ),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=k&wait=1h",
            400,
            "invalid_request",
        ),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=k&wait=20",
            400,
            "invalid_request",
        ),
        (
            "/v1/sales/spring/orders?sku=shoe&request_id=k&status=lost",
            400,
            "invalid_request",
        ),
        ("/v1/orders/x/events", 404, "no_such_order"),
        ("/v1/elsewhere", 404, "not_found"),
        ("/v1/sales/%ff", 400, "invalid_request"),
        ("/v1/orders/%ff", 400, "invalid_request"),
    ];
    for (path, status, code) in cases {
        let (answered, document, _) = shop.send(get(path, "ann")).await;
        assert_eq!(
            (answered.as_u16(), document["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let anonymous = Request::get("/v1/orders/x").body(Body::empty()).unwrap();
    assert_eq!(shop.send(anonymous).await.0, StatusCode::UNAUTHORIZED);
    let put = Request::builder()
        .method(Method::PUT)
        .uri("/v1/sales/spring")
        .body(Body::empty())
        .unwrap();
    assert_eq!(shop.send(put).await.1["code"], "method_not_allowed");
}
