//! An intent as Stripe's JSON: every field its SDKs read is there, null where there is nothing to say.

use serde_json::{Value, json};

use super::{Decline, Intent, method};

/// The `payment_intent` object.
pub(crate) fn json(intent: &Intent) -> Value {
    let details = &intent.details;
    json!({
        "id": intent.id.as_str(),
        "object": "payment_intent",
        "amount": intent.amount.to_wire(),
        "amount_capturable": 0,
        "amount_details": { "tip": {} },
        "amount_received": received(intent),
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
        "payment_method": intent.payment_method.as_ref().map(|_| method::id(&intent.id)),
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

/// The `list` object around a page of intents.
pub(crate) fn list(intents: &[Intent], has_more: bool) -> Value {
    json!({
        "object": "list",
        "url": "/v1/payment_intents",
        "has_more": has_more,
        "data": intents.iter().map(json).collect::<Vec<_>>(),
    })
}

fn received(intent: &Intent) -> i64 {
    crate::Money::try_new(intent.received_minor, intent.amount.currency())
        .map_or(0, |money| money.to_wire())
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
        "payment_method": method::json(&intent.id, &decline.payment_method, seconds(intent.created_ms)),
    })
}

/// Where Stripe's documentation explains a code.
pub(crate) fn doc_url(code: &str) -> String {
    format!(
        "https://stripe.com/docs/error-codes/{}",
        code.replace('_', "-")
    )
}

pub(crate) fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1000)
}
