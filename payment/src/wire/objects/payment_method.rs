//! A payment method as Stripe's JSON. A test token such as `pm_card_visa` becomes a method with an id of its own when an intent takes
//! it; here the id follows from the intent, so nothing is stored for it.

use serde_json::{Value, json};

use crate::ids::IntentId;

/// What a method's id begins with.
const PREFIX: &str = "pm_";

/// The id of the method that this intent made of a token.
pub(crate) fn id(intent: &IntentId) -> String {
    let text = intent.as_str();
    format!("{PREFIX}{}", text.strip_prefix("pi_").unwrap_or(text))
}

/// The whole object. Of the card only what its token tells is known.
pub(crate) fn json(intent: &IntentId, token: &str, created: i64) -> Value {
    let brand = brand(token);
    json!({
        "id": id(intent),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": {
                "city": null, "country": null, "line1": null, "line2": null, "postal_code": null, "state": null,
            },
            "email": null,
            "name": null,
            "phone": null,
            "tax_id": null,
        },
        "card": {
            "brand": brand,
            "checks": { "address_line1_check": null, "address_postal_code_check": null, "cvc_check": "pass" },
            "country": "US",
            "display_brand": brand,
            "exp_month": 12,
            "exp_year": 2034,
            "fingerprint": null,
            "funding": if token.contains("debit") { "debit" } else { "credit" },
            "generated_from": null,
            "last4": last4(brand),
            "networks": { "available": [brand], "preferred": null },
            "regulated_status": "unregulated",
            "three_d_secure_usage": { "supported": true },
            "wallet": null,
        },
        "created": created,
        "customer": null,
        "livemode": false,
        "metadata": {},
        "type": "card",
    })
}

fn brand(token: &str) -> &'static str {
    [
        "mastercard",
        "amex",
        "discover",
        "diners",
        "jcb",
        "unionpay",
    ]
    .into_iter()
    .find(|brand| token.contains(brand))
    .unwrap_or("visa")
}

/// Of the number that the test token stands for.
fn last4(brand: &str) -> &'static str {
    match brand {
        "mastercard" => "4444",
        "amex" => "8431",
        "discover" => "1117",
        "diners" => "0004",
        "jcb" => "0505",
        "unionpay" => "0005",
        _ => "4242",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_the_intents_number_and_the_tokens_brand() {
        let intent = IntentId::parse("pi_01abc").unwrap();
        let method = json(&intent, "pm_card_mastercard_debit", 1);
        assert_eq!(method["id"], "pm_01abc");
        assert_eq!(method["card"]["brand"], "mastercard");
        assert_eq!(method["card"]["funding"], "debit");
        assert_eq!(method["card"]["last4"], "4444");
    }
}
