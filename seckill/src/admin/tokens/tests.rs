//! Tokens from the operator's call to the buyer's purchase.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::{HeaderName, Request};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use super::*;
use crate::{
    admin::tests::{Desk, desk, sale},
    api::{self, identity::Identity},
    entitlement::{LEEWAY_S, TokenKey, TokenKeys},
    test_shop::{START, send},
};

const SECRET: &[u8] = b"a secret that only the shop knows";

/// A desk whose sale `vip` asks for tokens.
async fn vip_desk() -> Desk {
    let desk = desk().await;
    let key = TokenKey {
        kid: "k1".to_owned(),
        algorithm: Algorithm::HS256,
        verify: DecodingKey::from_secret(SECRET),
        sign: Some(EncodingKey::from_secret(SECRET)),
    };
    desk.parts.engine.use_tokens(TokenKeys::new(vec![key]));
    let mut vip = sale("vip");
    vip["admission"] = json!("token");
    vip["buyer_limit"] = json!(3);
    vip["ends_at_ms"] = json!(START + 600_000);
    let (status, made) = desk.call("POST", "/admin/v1/sales", &vip.to_string()).await;
    assert_eq!(status, 201, "{made}");
    desk
}

impl Desk {
    async fn token(&self, buyer: &str, more: Value) -> String {
        let mut wanted = json!({"buyers": [buyer]});
        for (field, value) in more.as_object().unwrap() {
            wanted[field] = value.clone();
        }
        let (status, issued) = self
            .call("POST", "/admin/v1/sales/vip/tokens", &wanted.to_string())
            .await;
        assert_eq!(status, 201, "{issued}");
        issued["tokens"][0]["token"].as_str().unwrap().to_owned()
    }

    async fn buy(&self, buyer: &str, token: Option<&str>, quantity: u32) -> (u16, Value) {
        let identity = Identity::Header(HeaderName::from_static("x-buyer-id"));
        let api = api::router(self.parts.engine.clone(), identity);
        let mut request = Request::post("/v1/sales/vip/orders")
            .header("content-type", "application/json")
            .header("x-buyer-id", buyer)
            // Another one each time: the token is what counts.
            .header("idempotency-key", rand::random::<u64>().to_string());
        if let Some(token) = token {
            request = request.header("penstock-entitlement", token);
        }
        let body = json!({"sku": "hat", "quantity": quantity}).to_string();
        let (status, document, _) = send(&api, request.body(Body::from(body)).unwrap()).await;
        (status.as_u16(), document)
    }
}

#[tokio::test]
async fn a_token_buys_once_whoever_repeats_it() {
    let desk = vip_desk().await;
    let token = desk.token("ann", json!({"max_quantity": 2})).await;
    let (status, order) = desk.buy("ann", Some(&token), 2).await;
    assert_eq!(status, 201, "{order}");
    let (status, again) = desk.buy("ann", Some(&token), 2).await;
    assert_eq!((status, &again["id"]), (200, &order["id"]));
    let (status, other) = desk.buy("ann", Some(&token), 1).await;
    assert_eq!((status, other["code"].as_str()), (409, Some("token_used")));
    // A second token is a second purchase.
    let second = desk.token("ann", json!({})).await;
    let (status, other) = desk.buy("ann", Some(&second), 1).await;
    assert_eq!(status, 201);
    assert_ne!(other["id"], order["id"]);
}

#[tokio::test]
async fn a_hundred_uses_at_once_are_one_order() {
    let desk = std::sync::Arc::new(vip_desk().await);
    let token = desk.token("ann", json!({})).await;
    let mut uses = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (desk, token) = (desk.clone(), token.clone());
        uses.spawn(async move { desk.buy("ann", Some(&token), 1).await });
    }
    let answers = uses.join_all().await;
    let created = answers.iter().filter(|(status, _)| *status == 201).count();
    let replayed = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!((created, replayed), (1, 99));
    let ids: HashSet<_> = answers
        .iter()
        .map(|(_, order)| order["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_token_is_its_buyers_alone_and_ends() {
    let desk = vip_desk().await;
    let code = |answer: (u16, Value)| (answer.0, answer.1["code"].as_str().unwrap().to_owned());
    let token = desk.token("ann", json!({"expires_in": "60s"})).await;
    assert_eq!(
        code(desk.buy("ann", None, 1).await),
        (403, "token_required".into())
    );
    assert_eq!(
        code(desk.buy("bob", Some(&token), 1).await),
        (403, "token_invalid".into())
    );
    let small = desk.token("ann", json!({"max_quantity": 1})).await;
    assert_eq!(
        code(desk.buy("ann", Some(&small), 2).await),
        (403, "token_invalid".into())
    );
    let unused = desk.token("ann", json!({"expires_in": "60s"})).await;
    let (status, order) = desk.buy("ann", Some(&token), 1).await;
    assert_eq!(status, 201);

    let after = START + 1 + 60_000 + LEEWAY_S * 1000;
    desk.parts.now.store(after, Ordering::Relaxed);
    assert_eq!(
        code(desk.buy("ann", Some(&unused), 1).await),
        (403, "token_expired".into())
    );
    let (status, again) = desk.buy("ann", Some(&token), 1).await;
    assert_eq!(
        (status, &again["id"]),
        (200, &order["id"]),
        "what it bought is still told"
    );
    assert_eq!(
        code(desk.buy("ann", Some(&token), 2).await),
        (409, "token_used".into())
    );
}

#[tokio::test]
async fn bad_wishes_for_tokens_are_told() {
    let desk = vip_desk().await;
    let vip = "/admin/v1/sales/vip/tokens";
    let cases = [
        (vip, json!({"buyers": []}), 422),
        (vip, json!({"buyers": ["a b"]}), 422),
        (vip, json!({"buyers": ["ann", "ann"]}), 422),
        (vip, json!({"buyers": ["ann"], "sku": "shoe"}), 422),
        (vip, json!({"buyers": ["ann"], "max_quantity": 0}), 422),
        (vip, json!({"buyers": ["ann"], "max_quantity": 4}), 422),
        (vip, json!({"buyers": ["ann"], "expires_in": "0s"}), 422),
        (vip, json!({"buyers": ["ann"], "expires_in": "soon"}), 422),
        (
            vip,
            json!({"buyers": ["ann"], "expires_in": "1s", "not_before_ms": START + 2000}),
            422,
        ),
        (vip, json!({"buyer": "ann"}), 400),
        (
            "/admin/v1/sales/spring/tokens",
            json!({"buyers": ["ann"]}),
            422,
        ),
        (
            "/admin/v1/sales/none/tokens",
            json!({"buyers": ["ann"]}),
            404,
        ),
    ];
    for (path, wanted, status) in cases {
        let (answered, refused) = desk.call("POST", path, &wanted.to_string()).await;
        assert_eq!(answered, status, "{wanted}: {refused}");
    }
    desk.parts.engine.use_tokens(TokenKeys::default());
    let (status, refused) = desk
        .call("POST", vip, &json!({"buyers": ["ann"]}).to_string())
        .await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (409, Some("no_signing_key"))
    );
    let mut keyless = sale("keyless");
    keyless["admission"] = json!("token");
    let (status, _) = desk
        .call("POST", "/admin/v1/sales", &keyless.to_string())
        .await;
    assert_eq!(status, 422, "nobody could buy in it");
}
