//! Whether a buyer is let through to the stock store, and what they get if they are not.
//!
//! Refusals come from memory. A refused request whose id this node knows as accepted (the same memory as that of
//! [`crate::sold_out`]) is answered with its order, read and not bought: a buyer who was let through once gets the answer to it
//! again, also after they were blocked. What another node accepted is known here after the next refresh, half a second later;
//! until then such a retry may be refused once.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, header};

use super::{
    Api,
    buy::{Checked, key_reused, refused, replayed},
    extract, orders,
    problem::{Code, Problem},
    waiting::wait_params::etag,
};
use crate::{
    admission::Refused,
    catalogue::OpenSale,
    ids::{BuyerId, RequestId, SkuId},
    metrics::PurchaseResult,
    sale::{Admission, Sale},
};

/// The token of a sale that asks for one.
const TOKEN: HeaderName = HeaderName::from_static("penstock-entitlement");

/// The id of a request, and what keeps its buyer from buying now, if anything does. In a sale for holders of tokens the token
/// is the id, so an `Idempotency-Key` says nothing there. Fails if the request has no id that can be trusted.
pub(super) fn request(
    api: &Api,
    sale: &OpenSale,
    sku: &SkuId,
    buyer: &BuyerId,
    quantity: u32,
    headers: &HeaderMap,
) -> Result<(RequestId, Option<Problem>), Problem> {
    let (request, refusal) = match sale.sale.rules.admission {
        Admission::Open | Admission::AllowList | Admission::Lottery => {
            (extract::request_id(headers)?, None)
        }
        Admission::Token => {
            let token = extract::one(headers, &TOKEN)?.ok_or_else(|| {
                Problem::new(
                    Code::TokenRequired,
                    "send the buyer's token in the header Penstock-Entitlement",
                )
            })?;
            let now_s = api.engine.now_ms() / 1000;
            let keys = api.engine.tokens();
            let verified = keys.verify(token, &sale.sale, sku, buyer, now_s);
            let entitlement = verified.map_err(|flaw| {
                tracing::debug!(%flaw, sale = %sale.sale.id, "entitlement token refused");
                let detail = "it does not entitle this buyer to buy this sku in this sale now";
                Problem::new(Code::TokenInvalid, detail)
            })?;
            if let Some(most) = entitlement.max_quantity.filter(|most| quantity > *most) {
                let detail = format!("quantity = {quantity}: the token entitles to at most {most}");
                return Err(Problem::new(Code::TokenInvalid, detail));
            }
            let expired = Problem::new(Code::TokenExpired, "its time is over");
            (
                entitlement.request,
                entitlement.is_expired.then_some(expired),
            )
        }
    };
    Ok((request, listed(api, &sale.sale, buyer).or(refusal)))
}

/// What the lists and the lottery of a sale have against a buyer.
pub(super) fn listed(api: &Api, sale: &Sale, buyer: &BuyerId) -> Option<Problem> {
    match api.engine.admission().admits(sale, buyer) {
        Ok(()) => None,
        Err(Refused::Blocked) => Some(blocked()),
        Err(Refused::NotAllowed) => Some(Problem::new(
            Code::NotAllowed,
            "this sale is for invited buyers, and this one is not among them",
        )),
        Err(Refused::NotDrawn) => Some(Problem::new(
            Code::NotDrawn,
            "only those who are drawn in the sale's lottery may buy",
        )),
    }
}

/// The buyer is on the block list.
pub(super) fn blocked() -> Problem {
    Problem::new(Code::Blocked, "the buyer is excluded from this sale")
}

/// The order that this very request led to before, or else the refusal. Nothing is bought here, whatever is found.
pub(super) async fn replay_or(
    api: &Api,
    checked: &Checked,
    problem: Problem,
) -> (PurchaseResult, Response) {
    let Checked {
        sale,
        stock,
        buyer,
        request,
        quantity,
        metadata,
        ..
    } = checked;
    // Everything of a buyer is at home in one segment.
    let home = stock.home(buyer);
    if home.sold_out.is_known(buyer, request) {
        let engine = api.engine.clone();
        let (segment, buyer, request) = (home.id.clone(), buyer.clone(), request.clone());
        let asked = async move { engine.order_by_request(&segment, &buyer, &request).await };
        // A panic was reported where it happened; the refusal is what is left to say.
        match api.on_control(asked).await.unwrap_or(Ok(None)) {
            Ok(Some(order))
                if (order.quantity(), order.metadata()) == (*quantity, metadata.as_ref()) =>
            {
                let standing = api.waiting.serve(&order);
                let document = Json(orders::order_document(api, &order, standing));
                let mut response = replayed(document.into_response());
                response.headers_mut().insert(header::ETAG, etag(standing));
                return (PurchaseResult::Replayed, response);
            }
            Ok(Some(_)) => {
                let problem = key_reused(&sale.sale);
                return (PurchaseResult::KeyReused, problem.into_response());
            }
            // Another request with the same hash.
            Ok(None) => {}
            Err(error) => {
                let problem = Problem::from(error);
                return (PurchaseResult::Frozen, problem.into_response());
            }
        }
    }
    (refused(&problem), problem.into_response())
}

#[cfg(test)]
mod tests;
