//! What a token opens, and every way in which somebody might try to open more with it.

use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::{jwt::encode, sale::NewSale};

const NOW_S: u64 = 1_000_000;
const SECRET: &[u8] = b"a secret that only the shop knows";
const OLD_SECRET: &[u8] = b"the secret of last month, still valid";

fn hs256(kid: &str, secret: &[u8]) -> TokenKey {
    TokenKey {
        kid: kid.to_owned(),
        algorithm: Algorithm::HS256,
        verify: DecodingKey::from_secret(secret),
        sign: Some(EncodingKey::from_secret(secret)),
    }
}

fn keys() -> TokenKeys {
    TokenKeys::new(vec![hs256("2026-11", SECRET), hs256("2026-10", OLD_SECRET)])
}

fn sale(skus: &[&str]) -> Sale {
    let skus: Vec<Value> = skus
        .iter()
        .map(|sku| json!({"sku": sku, "stock": 1, "price_minor": 1}))
        .collect();
    let document = json!({
        "id": "spring", "starts_at_ms": 1, "ends_at_ms": 2, "pay_within": "1m", "buyer_limit": 2, "currency": "usd",
        "skus": skus, "admission": "token"
    });
    let new: NewSale = serde_json::from_value(document).unwrap();
    new.check().unwrap()
}

fn claims() -> Value {
    json!({"jti": "t1", "sub": "ann", "sale": "spring", "sku": "shoe", "exp": NOW_S + 60})
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

fn header(algorithm: Algorithm, kid: &str) -> Header {
    Header {
        typ: Some(TYPE.to_owned()),
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    }
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET);
    signed(&header(Algorithm::HS256, "2026-11"), claims, &key)
}

fn ask(keys: &TokenKeys, token: &str) -> Result<Entitlement, Flaw> {
    let (sku, buyer) = ("shoe".parse().unwrap(), "ann".parse().unwrap());
    keys.verify(token, &sale(&["shoe", "hat"]), &sku, &buyer, NOW_S)
}

#[test]
fn a_minted_token_opens_its_sale() {
    let mut wanted = serde_json::from_value::<Claims>(claims()).unwrap();
    wanted.max_quantity = Some(2);
    let minted = keys().mint(&wanted).unwrap();
    let entitlement = ask(&keys(), &minted).unwrap();
    assert_eq!(entitlement.max_quantity, Some(2));
    assert!(!entitlement.is_expired);
    assert!(minted.len() < 400, "{} bytes", minted.len());
    assert_eq!(TokenKeys::default().mint(&wanted), None);
}

#[test]
fn one_token_is_one_request_id_and_two_are_two() {
    let request = |jti: &str, sale: &str| request_of(&sale.parse().unwrap(), jti);
    assert_eq!(request("t1", "spring"), request("t1", "spring"));
    assert_ne!(request("t1", "spring"), request("t2", "spring"));
    assert_ne!(request("t1", "spring"), request("t1", "summer"));
    // Written down: it must be the same on every node and in every version.
    assert_eq!(
        request("t1", "spring").as_str(),
        "tok_5140598b368d8eccdea80ee1ff3765abec36cdac"
    );
}

#[test]
fn a_key_that_is_phased_out_still_checks_until_it_is_removed() {
    let key = EncodingKey::from_secret(OLD_SECRET);
    let old = signed(&header(Algorithm::HS256, "2026-10"), &claims(), &key);
    assert!(ask(&keys(), &old).is_ok());
    let rotated = TokenKeys::new(vec![hs256("2026-11", SECRET)]);
    assert_eq!(ask(&rotated, &old), Err(Flaw("unknown key")));
}

#[test]
fn tokens_made_elsewhere_are_checked_by_their_public_keys() {
    let random = ring::rand::SystemRandom::new();
    let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed_public = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
    let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ec_public =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
    let key = |kid: &str, algorithm, verify| TokenKey {
        kid: kid.to_owned(),
        algorithm,
        verify,
        sign: None,
    };
    let ed_verify = DecodingKey::from_ed_der(ed_public.public_key().as_ref());
    let ec_verify = DecodingKey::from_ec_der(ec_public.public_key().as_ref());
    let keys = TokenKeys::new(vec![
        key("ed", Algorithm::EdDSA, ed_verify),
        key("ec", Algorithm::ES256, ec_verify),
    ]);
    let ed_sign = EncodingKey::from_ed_der(ed.as_ref());
    let ec_sign = EncodingKey::from_ec_der(ec.as_ref());
    let by_ed = signed(&header(Algorithm::EdDSA, "ed"), &claims(), &ed_sign);
    let by_ec = signed(&header(Algorithm::ES256, "ec"), &claims(), &ec_sign);
    assert!(ask(&keys, &by_ed).is_ok());
    assert!(ask(&keys, &by_ec).is_ok());
    // The public key as the secret of a MAC: the oldest confusion there is.
    let confused = EncodingKey::from_secret(ed_public.public_key().as_ref());
    let confused = signed(&header(Algorithm::HS256, "ed"), &claims(), &confused);
    assert_eq!(ask(&keys, &confused), Err(Flaw("signature or claims")));
    let wrong_key = signed(&header(Algorithm::EdDSA, "ec"), &claims(), &ed_sign);
    assert_eq!(ask(&keys, &wrong_key), Err(Flaw("signature or claims")));
    assert_eq!(
        keys.mint(&serde_json::from_value(claims()).unwrap()),
        None,
        "a public key mints nothing"
    );
}

#[test]
fn every_attack_is_refused() {
    let key = EncodingKey::from_secret(SECRET);
    let with = |field: &str, value: Value| {
        let mut claims = claims();
        claims[field] = value;
        token(&claims)
    };
    let without = |field: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(field);
        token(&claims)
    };
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let base64 = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let none = base64(&format!(
        r#"{{"alg":"none","typ":"{TYPE}","kid":"2026-11"}}"#
    ));
    let critical = base64(&format!(
        r#"{{"alg":"HS256","typ":"{TYPE}","kid":"2026-11","crit":["x"]}}"#
    ));
    let other_claims = base64(&claims().to_string().replace("ann", "bob"));
    let plain = Header {
        typ: Some("JWT".to_owned()),
        ..header(Algorithm::HS256, "2026-11")
    };
    let nameless = Header {
        kid: None,
        ..header(Algorithm::HS256, "2026-11")
    };
    let attacks = [
        ("nothing", String::new()),
        ("no token", "x.y.z".to_owned()),
        ("alg none", format!("{none}.{}.", parts[1])),
        (
            "alg none with a signature",
            format!("{none}.{}.{}", parts[1], parts[2]),
        ),
        (
            "critical extension",
            format!("{critical}.{}.{}", parts[1], parts[2]),
        ),
        (
            "other claims under this signature",
            format!("{}.{other_claims}.{}", parts[0], parts[2]),
        ),
        ("truncated signature", good[..good.len() - 2].to_owned()),
        (
            "truncated before the signature",
            format!("{}.{}", parts[0], parts[1]),
        ),
        ("empty signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "unknown kid",
            signed(&header(Algorithm::HS256, "2025"), &claims(), &key),
        ),
        ("no kid", signed(&nameless, &claims(), &key)),
        (
            "another key's kid",
            signed(&header(Algorithm::HS256, "2026-10"), &claims(), &key),
        ),
        (
            "another algorithm",
            signed(&header(Algorithm::HS512, "2026-11"), &claims(), &key),
        ),
        ("a login token", signed(&plain, &claims(), &key)),
        ("another buyer", with("sub", json!("bob"))),
        ("another sale", with("sale", json!("summer"))),
        ("another sku", with("sku", json!("hat"))),
        ("no sku where there are several", without("sku")),
        ("not valid yet", with("nbf", json!(NOW_S + LEEWAY_S + 1))),
        ("no end", without("exp")),
        ("no id", without("jti")),
        ("an empty id", with("jti", json!(""))),
        ("an id without end", with("jti", json!("x".repeat(129)))),
        ("no buyer", without("sub")),
        ("a number for a buyer", with("sub", json!(7))),
        ("a token without end", with("jti", json!("x".repeat(5000)))),
    ];
    for (attack, token) in attacks {
        assert!(ask(&keys(), &token).is_err(), "{attack}");
    }
    assert!(ask(&keys(), &good).is_ok());
}

#[test]
fn an_end_is_an_end_within_the_leeway() {
    let ending = |exp: u64| {
        let mut claims = claims();
        claims["exp"] = json!(exp);
        ask(&keys(), &token(&claims)).unwrap().is_expired
    };
    assert!(!ending(NOW_S - LEEWAY_S + 1));
    assert!(ending(NOW_S - LEEWAY_S));
    let mut early = claims();
    early["nbf"] = json!(NOW_S + LEEWAY_S);
    assert!(ask(&keys(), &token(&early)).is_ok());
}

#[test]
fn a_sale_of_one_sku_needs_no_sku_in_the_token() {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("sku");
    let (sku, buyer) = ("shoe".parse().unwrap(), "ann".parse().unwrap());
    let verify = |skus: &[&str]| keys().verify(&token(&claims), &sale(skus), &sku, &buyer, NOW_S);
    assert!(verify(&["shoe"]).is_ok());
    // Else one token would buy once of each.
    assert!(verify(&["shoe", "hat"]).is_err());
}
