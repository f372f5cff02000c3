//! A page of objects as Stripe's JSON.

use serde_json::{Value, json};

use super::intent;
use crate::intents::Intent;

/// The `list` object around a page of intents.
pub(crate) fn intents(page: &[Intent], has_more: bool) -> Value {
    json!({
        "object": "list",
        "url": "/v1/payment_intents",
        "has_more": has_more,
        "data": page.iter().map(intent::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intents::testing;

    #[test]
    fn a_page_holds_whole_intents() {
        let page = intents(&[testing::intent(None), testing::intent(None)], true);
        assert_eq!(page["has_more"], true);
        assert_eq!(page["data"][1]["object"], "payment_intent");
    }
}
