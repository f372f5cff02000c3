//! An intent as Stripe's JSON: every field its SDKs read is there, null where there is nothing to say.

use serde_json::{Value, json};

use super::{doc_url, payment_method, seconds};
use crate::intents::{Decline, Intent};

/// The `payment_intent` object.
pub(crate) fn json(intent: &Intent) -> Value {
    let details = &intent.details;
    json!({
        "id": intent.id.as_str(),
        "object": "payment_intent",
        "amount": intent.amount.to_wire(),
        "amount_capturable": 0,
        "amount_details": { "tip": {} },
        "amount_received": intent.received.to_wire(),
        "application": null,
        "application_fee_amount": null,
        "automatic_payment_methods": details.automatic_redirects.as_ref().map(|redirects| {
            json!({ "allow_redirects": redirects, "enabled": true })
        }),
        "canceled_at": intent.canceled_at_ms.map(seconds),
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": details.capture_method.as_deref().unwrap_or("automatic"),
        "client_secret": intent.client_secret,
        "confirmation_method": details.confirmation_method.as_deref().unwrap_or("automatic"),
        "created": seconds(intent.created_ms),
        "currency": intent.amount.currency().code(),
        "customer": null,
        "description": details.description,
        "last_payment_error": intent.last_error.as_ref().map(|decline| last_payment_error(intent, decline)),
        "latest_charge": intent.latest_charge.as_ref().map(|id| id.as_str()),
        "livemode": false,
        "metadata": intent.metadata,
        "next_action": null,
        "on_behalf_of": null,
        "payment_method": intent.payment_method.as_ref().map(|_| payment_method::id(&intent.id)),
        "payment_method_configuration_details": null,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "processing": null,
        "receipt_email": details.receipt_email,
        "review": null,
        "setup_future_usage": null,
        "shipping": null,
        "source": null,
        "statement_descriptor": details.statement_descriptor,
        "statement_descriptor_suffix": details.statement_descriptor_suffix,
        "status": intent.status.as_str(),
        "transfer_data": null,
        "transfer_group": null,
    })
}

/// What the channel refused, as the intent keeps it and the 402 tells it.
fn last_payment_error(intent: &Intent, decline: &Decline) -> Value {
    json!({
        "type": "card_error",
        "code": decline.code,
        "doc_url": doc_url(&decline.code),
        "decline_code": decline.decline_code,
        "message": decline.message,
        "charge": decline.charge,
        "payment_method": payment_method::json(&intent.id, &decline.payment_method, seconds(intent.created_ms)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intents::testing;

    #[test]
    fn amounts_are_the_wires_and_a_token_is_shown_as_the_intents_method() {
        let mut intent = testing::intent(Some("pm_card_visa"));
        intent.received = intent.amount;
        let shown = json(&intent);
        assert_eq!(
            (&shown["amount"], &shown["amount_received"]),
            (&json!(500), &json!(500))
        );
        assert_eq!(shown["payment_method"], payment_method::id(&intent.id));
        assert_eq!(shown["last_payment_error"], Value::Null);
        intent.last_error = Some(testing::decline());
        let error = &json(&intent)["last_payment_error"];
        assert_eq!(
            (&error["code"], &error["charge"]),
            (&json!("expired_card"), &json!("ch_1"))
        );
        assert_eq!(error["payment_method"]["object"], "payment_method");
    }
}
