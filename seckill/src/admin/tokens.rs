//! Minting entitlement tokens for the buyers of a sale.

use std::collections::HashSet;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use settings::units::duration_ms;

use super::{Engine, document, invalid, schedule::stored_sale};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    entitlement::{Claims, new_id},
    ids::{BuyerId, SkuId},
    sale::{Admission, FieldProblem, Sale},
};

/// Tokens of one call: some 400 KiB of answer.
const BUYERS_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    buyers: Vec<String>,
    sku: Option<String>,
    max_quantity: Option<i128>,
    /// From now; until the sale ends if missing.
    expires_in: Option<String>,
    /// Unix milliseconds; at once if missing.
    not_before_ms: Option<u64>,
}

pub(super) async fn issue(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let sale = stored_sale(&engine, &extract::path(sale)?).await?;
    let wanted: Wanted = document(body)?;
    let now_ms = engine.now_ms();
    let (buyers, template) = check(&sale, &wanted, now_ms).map_err(invalid)?;
    let keys = engine.tokens();
    let mut tokens = Vec::with_capacity(buyers.len());
    for buyer in buyers {
        let claims = Claims {
            jti: new_id(rand::random()),
            sub: buyer.to_string(),
            ..template.clone()
        };
        let token = keys.mint(&claims).ok_or_else(|| {
            Problem::new(
                Code::NoSigningKey,
                "seckill.token_keys has no HS256 key; public keys only check",
            )
        })?;
        tokens.push(json!({"id": claims.jti, "buyer": buyer, "token": token}));
    }
    let issued = json!({
        "sale": sale.id, "sku": template.sku, "max_quantity": template.max_quantity,
        "expires_at_ms": template.exp * 1000, "tokens": tokens,
    });
    Ok((StatusCode::CREATED, Json(issued)))
}

/// The buyers, and what all their tokens say.
fn check(
    sale: &Sale,
    wanted: &Wanted,
    now_ms: u64,
) -> Result<(Vec<BuyerId>, Claims), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut bad = |field: String, value: String, allowed: String| {
        problems.push(FieldProblem {
            field,
            value,
            allowed,
        });
    };
    if sale.rules.admission != Admission::Token {
        let admission = sale.rules.admission.as_str().to_owned();
        bad(
            "sale".into(),
            admission,
            "a sale with admission = token".into(),
        );
    }
    if !(1..=BUYERS_MAX).contains(&wanted.buyers.len()) {
        let given = wanted.buyers.len().to_string();
        bad("buyers".into(), given, format!("1 to {BUYERS_MAX} buyers"));
    }
    let (mut buyers, mut seen) = (Vec::new(), HashSet::new());
    for (index, text) in wanted.buyers.iter().enumerate().take(BUYERS_MAX) {
        match BuyerId::try_new(text) {
            Ok(buyer) if seen.insert(buyer.clone()) => buyers.push(buyer),
            Ok(_) => bad(
                format!("buyers[{index}]"),
                text.clone(),
                "a buyer that the list does not hold twice".into(),
            ),
            Err(invalid) => bad(
                format!("buyers[{index}]"),
                text.clone(),
                invalid.to_string(),
            ),
        }
    }
    let sku = wanted.sku.as_deref();
    let is_known = |sku| SkuId::try_new(sku).is_ok_and(|sku| sale.sku(&sku).is_some());
    match sku {
        None if sale.skus.len() > 1 => bad(
            "sku".into(),
            String::new(),
            "a sku of the sale, which has several: a token buys once".into(),
        ),
        Some(sku) if !is_known(sku) => bad("sku".into(), sku.into(), "a sku of the sale".into()),
        Some(_) | None => {}
    }
    let most = i128::from(sale.rules.order_limit.unwrap_or(sale.buyer_limit));
    if let Some(quantity) = wanted.max_quantity.filter(|q| !(1..=most).contains(q)) {
        bad(
            "max_quantity".into(),
            quantity.to_string(),
            format!("a whole number from 1 to {most}"),
        );
    }
    let expires_ms = match &wanted.expires_in {
        None => Some(sale.ends_at_ms),
        Some(text) => duration_ms(text).and_then(|ms| now_ms.checked_add(ms)),
    };
    // Rounded down: a token never lives longer than it was asked to.
    let exp = expires_ms.filter(|ms| *ms > now_ms).map(|ms| ms / 1000);
    if exp.is_none() {
        let given = wanted.expires_in.clone().unwrap_or_default();
        bad(
            "expires_in".into(),
            given,
            "a duration, as in 15m, that ends in the future".into(),
        );
    }
    let nbf = wanted.not_before_ms.map(|ms| ms.div_ceil(1000));
    if let (Some(begins), Some(ends)) = (nbf, exp)
        && begins >= ends
    {
        bad(
            "not_before_ms".into(),
            (begins * 1000).to_string(),
            format!("earlier than the end ({})", ends * 1000),
        );
    }
    let (true, Some(exp)) = (problems.is_empty(), exp) else {
        return Err(problems);
    };
    let template = Claims {
        jti: String::new(),
        sub: String::new(),
        sale: sale.id.to_string(),
        sku: wanted.sku.clone(),
        max_quantity: wanted.max_quantity.map(|quantity| quantity as u32),
        exp,
        nbf,
    };
    Ok((buyers, template))
}

#[cfg(test)]
mod tests;
