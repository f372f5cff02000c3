//! The latest charge of an intent as Stripe's JSON, for callers that ask for the whole object (`expand[]=latest_charge`).

use serde_json::{Value, json};

use super::{payment_method, seconds};
use crate::intents::{Intent, Status};

/// The object; of a refused charge what the intent keeps of its refusal.
pub(crate) fn json(intent: &Intent, id: &str) -> Value {
    let is_paid = intent.status == Status::Succeeded;
    let refused = intent.last_error.as_ref();
    let status = match (is_paid, refused) {
        (true, _) => "succeeded",
        (false, Some(_)) => "failed",
        (false, None) => "pending",
    };
    let amount = intent.amount.to_wire();
    json!({
        "id": id,
        "object": "charge",
        "amount": amount,
        "amount_captured": if is_paid { amount } else { 0 },
        "amount_refunded": 0,
        "balance_transaction": null,
        "captured": is_paid,
        "created": seconds(intent.created_ms),
        "currency": intent.amount.currency().code(),
        "customer": null,
        "description": intent.details.description,
        "disputed": false,
        "failure_code": refused.map(|decline| decline.code.as_str()),
        "failure_message": refused.map(|decline| decline.message.as_str()),
        "livemode": false,
        "metadata": intent.metadata,
        "paid": is_paid,
        "payment_intent": intent.id.as_str(),
        "payment_method": intent.payment_method.as_ref().map(|_| payment_method::id(&intent.id)),
        "receipt_email": intent.details.receipt_email,
        "refunded": false,
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intents::testing;

    #[test]
    fn a_charge_is_what_its_intent_knows_of_it() {
        let mut intent = testing::intent(Some("pm_card_visa"));
        let shown = |intent: &Intent| {
            let charge = json(intent, "ch_1");
            let status = charge["status"].as_str().unwrap().to_owned();
            (
                status,
                charge["amount_captured"].clone(),
                charge["failure_code"].clone(),
            )
        };
        assert_eq!(shown(&intent), ("pending".into(), json!(0), Value::Null));
        intent.status = Status::Succeeded;
        assert_eq!(
            shown(&intent),
            ("succeeded".into(), json!(500), Value::Null)
        );
        intent.status = Status::RequiresPaymentMethod;
        intent.last_error = Some(testing::decline());
        assert_eq!(
            shown(&intent),
            ("failed".into(), json!(0), json!("expired_card"))
        );
    }
}
