//! The operations of the sale API.

use super::Operation;

/// What every operation may be refused with: by the edge, or because the path names nothing.
pub(super) const COMMON: &[&str] = &[
    "bad_request",
    "invalid_request",
    "not_found",
    "method_not_allowed",
    "body_timeout",
    "body_too_large",
    "limited",
    "internal",
    "not_ready",
];

const WAIT: &[&str] = &[
    "query wait? string",
    "query status? unknown|reserved|paying|paid|released|refused",
    "header Prefer? string",
    "header If-None-Match? string",
];

const KEY: &[&str] = &[
    "header Idempotency-Key? string",
    "header Penstock-Entitlement? string",
];

#[rustfmt::skip]
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { method: "get", path: "/v1/sales/{sale}", id: "getSale", summary: "A sale as buyers see it", parameters: &[], body: None,
        answers: &[(200, "PublicSale", "the sale")], refusals: &["no_such_sale"], is_open: true },
    Operation { method: "post", path: "/v1/sales/{sale}/orders", id: "buy", summary: "Buy one sku", parameters: KEY, body: Some("Purchase"),
        answers: &[(201, "Order", "bought"), (200, "Order", "bought before by the same key"), (202, "NotKnownYet", "not known yet: poll")],
        refusals: &["unauthenticated", "missing_idempotency_key", "invalid_body", "invalid_quantity", "invalid_metadata",
            "raw_card_data_refused", "secret_key_refused", "order_limit", "blocked", "not_allowed",
            "not_drawn", "token_required", "token_invalid", "token_expired", "no_such_sale", "no_such_sku", "sold_out", "buyer_limit",
            "not_started", "token_used", "ended", "unsupported_media_type", "key_reused", "paused", "frozen", "unavailable"], is_open: false },
    Operation { method: "get", path: "/v1/sales/{sale}/orders", id: "findOrder", summary: "The order of a request",
        parameters: &["query sku string", "query request_id string", WAIT[0], WAIT[1], WAIT[2], WAIT[3]], body: None,
        answers: &[(200, "Order", "the order"), (202, "NotKnownYet", "not known yet"), (304, "", "as it was")],
        refusals: &["unauthenticated", "no_such_sale", "no_such_sku", "no_such_order", "too_many_waiting", "waiting_full", "unavailable"], is_open: false },
    Operation { method: "post", path: "/v1/sales/{sale}/carts", id: "buyCart", summary: "Buy several skus, or none of them",
        parameters: &[KEY[0]], body: Some("CartRequest"),
        answers: &[(201, "Cart", "bought"), (200, "Cart", "bought before by the same key"), (202, "NotKnownYet", "not known yet: poll")],
        refusals: &["unauthenticated", "missing_idempotency_key", "invalid_body", "invalid_quantity", "invalid_metadata",
            "raw_card_data_refused", "secret_key_refused", "order_limit", "blocked", "not_allowed",
            "not_drawn", "no_such_sale", "no_such_sku", "no_carts", "sold_out", "buyer_limit", "not_started", "ended",
            "unsupported_media_type", "key_reused", "paused", "frozen", "unavailable"], is_open: false },
    Operation { method: "get", path: "/v1/sales/{sale}/carts", id: "findCart", summary: "The cart of a request",
        parameters: &["query request_id string"], body: None,
        answers: &[(200, "Cart", "the cart"), (202, "NotKnownYet", "not known yet")],
        refusals: &["unauthenticated", "no_such_sale", "no_such_order", "no_carts", "unavailable"], is_open: false },
    Operation { method: "delete", path: "/v1/sales/{sale}/carts", id: "cancelCart", summary: "Give a whole cart back",
        parameters: &["query request_id string"], body: None, answers: &[(200, "Cart", "given back")],
        refusals: &["unauthenticated", "no_such_sale", "no_such_order", "no_carts", "in_flight", "not_cancellable", "unavailable"], is_open: false },
    Operation { method: "post", path: "/v1/sales/{sale}/entries", id: "enterLottery", summary: "Enter the lottery", parameters: &[], body: None,
        answers: &[(201, "Entry", "entered"), (200, "Entry", "entered before")],
        refusals: &["unauthenticated", "blocked", "no_such_sale", "no_lottery", "entries_closed", "unavailable"], is_open: false },
    Operation { method: "get", path: "/v1/sales/{sale}/entries", id: "getEntry", summary: "The buyer's own entry", parameters: &[], body: None,
        answers: &[(200, "Entry", "the entry")],
        refusals: &["unauthenticated", "no_such_sale", "no_lottery", "no_such_entry", "unavailable"], is_open: false },
    Operation { method: "get", path: "/v1/sales/{sale}/draw", id: "getDraw", summary: "What was promised, and what to check it with",
        parameters: &[], body: None, answers: &[(200, "Draw", "the draw")], refusals: &["no_such_sale", "no_lottery", "unavailable"], is_open: true },
    Operation { method: "get", path: "/v1/sales/{sale}/draw/entries", id: "listEntries", summary: "All entries, once they are drawn",
        parameters: &["query after? string", "query limit? int"], body: None, answers: &[(200, "Entries", "a page")],
        refusals: &["no_such_sale", "no_lottery", "not_drawn_yet", "unavailable"], is_open: true },
    Operation { method: "get", path: "/v1/sales/{sale}/slots", id: "listSlots", summary: "Slots that can still be booked",
        parameters: &["query store? string"], body: None, answers: &[(200, "Slots", "the slots")], refusals: &["no_such_sale", "no_slots"], is_open: true },
    Operation { method: "post", path: "/v1/orders/{order}/code", id: "makeCheckinCode", summary: "A new check-in code for a booking",
        parameters: &[], body: None, answers: &[(201, "CheckinCode", "the code, shown once")],
        refusals: &["unauthenticated", "no_such_order", "no_slots", "in_flight", "not_booked", "code_locked", "unavailable"], is_open: false },
    Operation { method: "get", path: "/v1/orders/{order}", id: "getOrder", summary: "An order", parameters: WAIT, body: None,
        answers: &[(200, "Order", "the order"), (304, "", "as it was")],
        refusals: &["unauthenticated", "no_such_order", "too_many_waiting", "waiting_full", "unavailable"], is_open: false },
    Operation { method: "delete", path: "/v1/orders/{order}", id: "cancelOrder", summary: "Cancel an order before it is paid",
        parameters: &[], body: None, answers: &[(200, "Order", "released")],
        refusals: &["unauthenticated", "no_such_order", "in_flight", "not_cancellable", "unavailable"], is_open: false },
    Operation { method: "get", path: "/v1/orders/{order}/events", id: "followOrder", summary: "An order's changes as server-sent events",
        parameters: &["header Last-Event-ID? int"], body: None,
        answers: &[(200, "events", "`event: order`, `id:` its version, `data:` an Order"), (204, "", "all was told: do not come back")],
        refusals: &["unauthenticated", "no_such_order", "too_many_waiting", "waiting_full", "unavailable"], is_open: false },
];
