//! The shapes of the OpenAPI documents against what a running process really answers.

use std::net::SocketAddr;

use gateway::admin::openapi::Api;
use serde_json::{Value, json};

use crate::{
    process::Penstock,
    support::{body, raw, status},
};

/// What is wrong with a value by a schema: each path, and why. Fields that the schema does not know are wrong too.
fn wrong(value: &Value, schema: &Value, all: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return wrong(value, &all[name], all, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let tries: Vec<_> = any.iter().map(|one| wrong(value, one, all, at)).collect();
        return match tries.iter().any(Vec::is_empty) {
            true => Vec::new(),
            false => tries.into_iter().next().unwrap(),
        };
    }
    if let Some(words) = schema["enum"].as_array() {
        return match words.contains(value) {
            true => Vec::new(),
            false => vec![format!("{at}: {value} is none of {words:?}")],
        };
    }
    let is_kind = match schema["type"].as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !is_kind {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    let mut found = Vec::new();
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(wrong(
            item,
            &schema["items"],
            all,
            &format!("{at}[{index}]"),
        ));
    }
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    else {
        return found;
    };
    for (name, field) in fields {
        match properties.get(name) {
            Some(schema) => found.extend(wrong(field, schema, all, &format!("{at}.{name}"))),
            None => found.push(format!("{at}.{name}: not in the document")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            found.push(format!("{at}.{name}: missing"));
        }
    }
    found
}

/// Asks, and holds the answer against what the document says of this operation and status.
async fn asked(
    api: Api,
    to: SocketAddr,
    method: &str,
    template: &str,
    path: &str,
    sent: Option<Value>,
) -> Value {
    let text = sent.map_or(String::new(), |sent| sent.to_string());
    let answer = raw(
        to,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Buyer-Id: ann\r\nIdempotency-Key: k1\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ),
    )
    .await;
    let got = status(&answer);
    let value: Value = serde_json::from_str(body(&answer))
        .unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"));
    let document = api.document();
    let responses = &document["paths"][template][method.to_lowercase()]["responses"];
    let content = &responses[got.to_string()]["content"];
    let kind = content
        .as_object()
        .unwrap_or_else(|| panic!("{method} {template} says nothing of {got}: {answer}"));
    let schema = &kind.values().next().unwrap()["schema"];
    let all = &document["components"]["schemas"];
    let found = match schema["allOf"].as_array() {
        Some(parts) => {
            let code = &parts[1]["properties"]["code"];
            let mut found = wrong(&value, &parts[0], all, "answer");
            found.extend(wrong(&value["code"], code, all, "code"));
            found
        }
        None => wrong(&value, schema, all, "answer"),
    };
    assert!(
        found.is_empty(),
        "{method} {path} ({got}): {found:#?}\n{value:#}"
    );
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_is_what_the_documents_say() {
    let folder = tempfile::tempdir().unwrap();
    let stores = format!(
        "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"\njournal = \"plain\"",
        folder.path().display()
    );
    let node = Penstock::start(folder.path(), &stores).await;
    let (http, admin) = (node.http, node.admin);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = now.as_millis() as u64;
    let sale = |id: &str, carts: bool| {
        json!({"id": id, "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "10m", "buyer_limit": 5,
            "currency": "usd", "carts": carts, "skus": [{"sku": "shoe", "stock": 10, "price_minor": 1999}]})
    };
    let sales = "/admin/v1/sales";
    let one = "/admin/v1/sales/{sale}";
    asked(
        Api::Admin,
        admin,
        "POST",
        sales,
        sales,
        Some(sale("spring", false)),
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "POST",
        sales,
        sales,
        Some(sale("spring", false)),
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "POST",
        sales,
        sales,
        Some(json!({"id": "x"})),
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "POST",
        sales,
        sales,
        Some(sale("carts", true)),
    )
    .await;
    asked(Api::Admin, admin, "GET", sales, sales, None).await;
    asked(
        Api::Admin,
        admin,
        "GET",
        one,
        "/admin/v1/sales/spring",
        None,
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "GET",
        one,
        "/admin/v1/sales/nobody",
        None,
    )
    .await;

    crate::process::eventually("the sale is open", async || {
        raw(
            http,
            "GET /v1/sales/carts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await
        .contains("\"open\"")
    })
    .await;
    let orders = "/v1/sales/{sale}/orders";
    let metadata = json!({"cart": "c 1", "locale": "de"});
    let buy = Some(json!({"sku": "shoe", "quantity": 1, "metadata": metadata}));
    asked(
        Api::Sale,
        http,
        "GET",
        "/v1/sales/{sale}",
        "/v1/sales/spring",
        None,
    )
    .await;
    let order = asked(
        Api::Sale,
        http,
        "POST",
        orders,
        "/v1/sales/spring/orders",
        buy.clone(),
    )
    .await;
    asked(
        Api::Sale,
        http,
        "POST",
        orders,
        "/v1/sales/spring/orders",
        buy,
    )
    .await;
    asked(
        Api::Sale,
        http,
        "POST",
        orders,
        "/v1/sales/spring/orders",
        Some(json!({"sku": "shoe", "quantity": 2})),
    )
    .await;
    asked(
        Api::Sale,
        http,
        "POST",
        orders,
        "/v1/sales/spring/orders",
        Some(json!({"sku": "boot"})),
    )
    .await;
    let card = json!({"sku": "shoe", "metadata": {"note": "4242 4242 4242 4242"}});
    let refused = asked(
        Api::Sale,
        http,
        "POST",
        orders,
        "/v1/sales/spring/orders",
        Some(card),
    )
    .await;
    assert_eq!(refused["code"], "raw_card_data_refused");
    asked(
        Api::Sale,
        http,
        "GET",
        orders,
        "/v1/sales/spring/orders?sku=shoe&request_id=k1",
        None,
    )
    .await;
    let path = format!("/v1/orders/{}", order["id"].as_str().unwrap());
    let found = asked(Api::Sale, http, "GET", "/v1/orders/{order}", &path, None).await;
    assert_eq!(
        (&order["metadata"], &found["metadata"]),
        (&metadata, &metadata)
    );
    let carts = "/v1/sales/{sale}/carts";
    let lines = Some(json!({"lines": [{"sku": "shoe", "quantity": 1}], "metadata": metadata}));
    asked(
        Api::Sale,
        http,
        "POST",
        carts,
        "/v1/sales/carts/carts",
        lines.clone(),
    )
    .await;
    asked(
        Api::Sale,
        http,
        "POST",
        carts,
        "/v1/sales/spring/carts",
        lines,
    )
    .await;
    asked(
        Api::Sale,
        http,
        "GET",
        carts,
        "/v1/sales/carts/carts?request_id=k1",
        None,
    )
    .await;
    asked(
        Api::Sale,
        http,
        "GET",
        "/v1/sales/{sale}/draw",
        "/v1/sales/spring/draw",
        None,
    )
    .await;
    crate::process::eventually("the order is settled", async || {
        raw(admin, "GET /admin/v1/sales/spring/report HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .contains("\"settled\":1")
    })
    .await;
    asked(Api::Sale, http, "DELETE", "/v1/orders/{order}", &path, None).await;

    for (method, what) in [
        ("GET", "report"),
        ("GET", "orders"),
        ("GET", "reconcile"),
        ("POST", "reconcile"),
        ("GET", "dead-events"),
        ("GET", "dead-letters"),
        ("POST", "dead-events/replay"),
        ("POST", "dead-letters/replay"),
        ("POST", "pause"),
        ("POST", "resume"),
        ("GET", "slots"),
        ("POST", "close"),
    ] {
        let told = asked(
            Api::Admin,
            admin,
            method,
            &format!("{one}/{what}"),
            &format!("/admin/v1/sales/spring/{what}"),
            None,
        )
        .await;
        if what == "orders" {
            assert_eq!(told["orders"][0]["metadata"], metadata);
        }
    }
    let restock = Some(json!({"sku": "shoe", "units": 5, "id": "d1"}));
    asked(
        Api::Admin,
        admin,
        "POST",
        "/admin/v1/sales/{sale}/restock",
        "/admin/v1/sales/carts/restock",
        restock,
    )
    .await;
    let list = Some(json!({"add": ["eve"]}));
    asked(
        Api::Admin,
        admin,
        "PUT",
        "/admin/v1/sales/{sale}/lists/{list}",
        "/admin/v1/sales/carts/lists/block",
        list,
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "GET",
        "/admin/v1/sales/{sale}/lists/{list}",
        "/admin/v1/sales/carts/lists/block",
        None,
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "GET",
        "/admin/v1/payments/reconcile",
        "/admin/v1/payments/reconcile",
        None,
    )
    .await;
    asked(
        Api::Admin,
        admin,
        "GET",
        "/admin/v1/backup",
        "/admin/v1/backup",
        None,
    )
    .await;
    asked(Api::Admin, admin, "GET", "/ready", "/ready", None).await;

    // Served as it is made.
    let served = asked(
        Api::Admin,
        admin,
        "GET",
        "/admin/v1/openapi/sale.json",
        "/admin/v1/openapi/sale.json",
        None,
    )
    .await;
    assert_eq!(served, Api::Sale.document());
}
