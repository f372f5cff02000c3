//! Minting entitlement tokens for the buyers of a sale.

use std::collections::HashSet;

use axum::{Json, extract::State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use settings::units::duration_ms;

use super::{
    Engine,
    extract::{Document, Stored},
    invalid,
};
use crate::{
    api::problem::{Code, Problem},
    entitlement::{Claims, new_id},
    ids::{BuyerId, SkuId},
    sale::{Admission, FieldProblem, Problems, Sale},
};

/// Tokens of one call: some 400 KiB of answer.
const BUYERS_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
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
    Stored(sale): Stored,
    Document(wanted): Document<Wanted>,
) -> Result<(StatusCode, Json<Value>), Problem> {
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
    let mut problems = Problems::default();
    if sale.rules.admission != Admission::Token {
        let given = sale.rules.admission.as_str();
        problems.add("sale", given, "a sale with admission = token");
    }
    if !(1..=BUYERS_MAX).contains(&wanted.buyers.len()) {
        let allowed = format!("1 to {BUYERS_MAX} buyers");
        problems.add("buyers", wanted.buyers.len(), allowed);
    }
    let (mut buyers, mut seen) = (Vec::new(), HashSet::new());
    for (index, text) in wanted.buyers.iter().enumerate().take(BUYERS_MAX) {
        let allowed = match BuyerId::try_new(text) {
            Ok(buyer) if seen.insert(buyer.clone()) => {
                buyers.push(buyer);
                continue;
            }
            Ok(_) => "a buyer that the list does not hold twice".to_owned(),
            Err(invalid) => invalid.to_string(),
        };
        problems.add(&format!("buyers[{index}]"), text, allowed);
    }
    let is_known = |sku| SkuId::try_new(sku).is_ok_and(|sku| sale.sku(&sku).is_some());
    match wanted.sku.as_deref() {
        None if sale.skus.len() > 1 => {
            let allowed = "a sku of the sale, which has several: a token buys once";
            problems.add("sku", "", allowed);
        }
        Some(sku) if !is_known(sku) => problems.add("sku", sku, "a sku of the sale"),
        Some(_) | None => {}
    }
    if wanted.max_quantity.is_some() {
        let most = sale.rules.order_limit.unwrap_or(sale.buyer_limit);
        problems.number("max_quantity", wanted.max_quantity, 1, i128::from(most));
    }
    let expires_ms = match &wanted.expires_in {
        None => Some(sale.ends_at_ms),
        Some(text) => duration_ms(text).and_then(|ms| now_ms.checked_add(ms)),
    };
    // Rounded down: a token never lives longer than it was asked to.
    let exp = expires_ms.filter(|ms| *ms > now_ms).map(|ms| ms / 1000);
    if exp.is_none() {
        let given = wanted.expires_in.clone().unwrap_or_default();
        let allowed = "a duration, as in 15m, that ends in the future";
        problems.add("expires_in", given, allowed);
    }
    let nbf = wanted.not_before_ms.map(|ms| ms.div_ceil(1000));
    if let (Some(begins), Some(ends)) = (nbf, exp)
        && begins >= ends
    {
        let allowed = format!("earlier than the end ({})", ends * 1000);
        problems.add("not_before_ms", begins * 1000, allowed);
    }
    let (true, Some(exp)) = (problems.0.is_empty(), exp) else {
        return Err(problems.0);
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
