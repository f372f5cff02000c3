//! The operations of the admin listener.

use super::Operation;

/// What every operation may be refused with.
pub(super) const COMMON: &[&str] = &[
    "unauthorized",
    "cross_site",
    "not_found",
    "method_not_allowed",
    "body_too_large",
    "limited",
];

const PAGE: &[&str] = &["query after? string", "query limit? int"];
const VERSION: &[&str] = &["header If-Match string"];

/// A row without parameters or body.
const fn plain(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [(u16, &'static str, &'static str)],
    refusals: &'static [&'static str],
) -> Operation {
    Operation {
        method,
        path,
        id,
        summary,
        parameters: &[],
        body: None,
        answers,
        refusals,
        is_open: false,
    }
}

/// The change is in the ledger and not in force yet.
const PENDING: (u16, &str, &str) = (
    202,
    "Pending",
    "recorded; in force when the store answers again",
);
const SALE: &[&str] = &["no_such_sale", "unavailable", "not_ready"];
const GATE: &[&str] = &[
    "no_such_sale",
    "not_editable",
    "ended",
    "unavailable",
    "not_ready",
];

#[rustfmt::skip]
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { is_open: true, ..plain("get", "/live", "live", "Whether the process works", &[(200, "text", "it does")], &[]) },
    Operation { is_open: true, parameters: &["query parts? string"], ..plain("get", "/ready", "ready", "Whether it wants traffic",
        &[(200, "Ready", "it does"), (503, "Ready", "it does not, and why")], &["not_found"]) },
    Operation { is_open: true, ..plain("get", "/ready/{part}", "partReady", "Whether one part is ready",
        &[(200, "Ready", "it is"), (503, "Ready", "it is not, and why")], &["not_found"]) },
    Operation { is_open: true, ..plain("get", "/metrics", "metrics", "What Prometheus reads", &[(200, "text", "text format 0.0.4")], &[]) },
    plain("get", "/admin/v1/openapi/sale.json", "saleDocument", "The sale API as OpenAPI", &[(200, "object", "the document")], &[]),
    plain("get", "/admin/v1/openapi/admin.json", "adminDocument", "This document", &[(200, "object", "the document")], &[]),
    plain("get", "/admin/v1/sales", "listSales", "All sales, drafts included, by their start", &[(200, "Sales", "the sales")], &["unavailable", "not_ready"]),
    Operation { body: Some("NewSale"), ..plain("post", "/admin/v1/sales", "createSale", "Create a sale",
        &[(201, "Sale", "created"), (200, "Sale", "the same was created before"), PENDING], &["invalid_body", "sale_exists", "invalid_document", "unavailable", "not_ready"]) },
    plain("get", "/admin/v1/sales/{sale}", "showSale", "One sale", &[(200, "Sale", "the sale; ETag is its version")], SALE),
    Operation { body: Some("NewSale"), parameters: VERSION, ..plain("put", "/admin/v1/sales/{sale}", "replaceSale", "Replace a draft", &[(200, "Sale", "as it is now")],
        &["no_such_sale", "invalid_body", "not_editable", "ended", "version_conflict", "version_required", "invalid_document", "unavailable", "not_ready"]) },
    Operation { body: Some("SaleChange"), parameters: VERSION, ..plain("patch", "/admin/v1/sales/{sale}", "editSale",
        "Change a sale by a merge patch; a published one its window only", &[(200, "Sale", "as it is now"), PENDING],
        &["no_such_sale", "invalid_body", "not_editable", "ended", "version_conflict", "version_required", "invalid_document", "unavailable", "not_ready"]) },
    plain("post", "/admin/v1/sales/{sale}/publish", "publishSale", "Publish a draft", &[(200, "Sale", "published"), PENDING], &["no_such_sale", "ended", "invalid_document", "unavailable", "not_ready"]),
    plain("post", "/admin/v1/sales/{sale}/pause", "pauseSale", "Stop selling for a while", &[(200, "Sale", "paused"), PENDING], GATE),
    plain("post", "/admin/v1/sales/{sale}/resume", "resumeSale", "Go on selling", &[(200, "Sale", "open"), PENDING], GATE),
    plain("post", "/admin/v1/sales/{sale}/close", "closeSale", "End a sale for good", &[(200, "Sale", "closed"), PENDING], GATE),
    plain("get", "/admin/v1/sales/{sale}/lists/{list}", "showList", "The size of a list of buyers", &[(200, "ListSize", "its size")], SALE),
    Operation { body: Some("ListChange"), ..plain("put", "/admin/v1/sales/{sale}/lists/{list}", "changeList", "Add and remove buyers",
        &[(200, "ListSize", "its size now"), PENDING], &["no_such_sale", "invalid_body", "invalid_document", "unavailable", "not_ready"]) },
    Operation { body: Some("DrawRequest"), ..plain("post", "/admin/v1/sales/{sale}/draw", "drawLottery", "Draw the lottery", &[(200, "Round", "the first round"), PENDING],
        &["no_such_sale", "no_lottery", "invalid_body", "not_editable", "not_drawn_yet", "version_conflict", "invalid_document", "unavailable", "not_ready"]) },
    Operation { body: Some("RoundRequest"), ..plain("post", "/admin/v1/sales/{sale}/draw/rounds", "callReserve", "Call reserve winners", &[(200, "Round", "the round"), PENDING],
        &["no_such_sale", "no_lottery", "invalid_body", "not_drawn_yet", "invalid_document", "unavailable", "not_ready"]) },
    plain("get", "/admin/v1/sales/{sale}/slots", "slotReport", "Bookings by slot", &[(200, "SlotReport", "the slots")], &["no_such_sale", "no_slots", "unavailable", "not_ready"]),
    Operation { body: Some("CheckIn"), ..plain("post", "/admin/v1/sales/{sale}/checkin", "checkIn", "Use a booking", &[(200, "CheckedIn", "used")],
        &["no_such_sale", "invalid_body", "wrong_code", "no_such_order", "no_slots", "checked_in", "code_locked", "not_booked", "unavailable", "not_ready"]) },
    Operation { body: Some("TokenRequest"), ..plain("post", "/admin/v1/sales/{sale}/tokens", "issueTokens", "Issue entitlements", &[(201, "Tokens", "the tokens, shown once")],
        &["no_such_sale", "invalid_body", "no_signing_key", "invalid_document", "unavailable", "not_ready"]) },
    Operation { body: Some("Restock"), ..plain("post", "/admin/v1/sales/{sale}/restock", "restock", "Add units", &[(200, "Restocked", "added, now or before"), PENDING],
        &["no_such_sale", "no_such_sku", "invalid_body", "ended", "key_reused", "invalid_document", "unavailable", "not_ready"]) },
    plain("get", "/admin/v1/sales/{sale}/report", "saleReport", "Counts of store and ledger", &[(200, "SaleReport", "the counts")], SALE),
    Operation { parameters: PAGE, ..plain("get", "/admin/v1/sales/{sale}/orders", "listOrders", "Orders of a sale", &[(200, "OrderRows", "a page")],
        &["no_such_sale", "invalid_request", "unavailable", "not_ready"]) },
    plain("get", "/admin/v1/sales/{sale}/reconcile", "compareSale", "Compare store and ledger, change nothing", &[(200, "Reconciliation", "what was found")], SALE),
    plain("post", "/admin/v1/sales/{sale}/reconcile", "reconcileSale", "Mend what can be mended, then compare", &[(200, "Reconciliation", "what was mended and found")], SALE),
    Operation { parameters: PAGE, ..plain("get", "/admin/v1/sales/{sale}/dead-events", "listDeadEvents", "Events given up", &[(200, "DeadEvents", "a page")],
        &["no_such_sale", "invalid_request", "unavailable", "not_ready"]) },
    plain("post", "/admin/v1/sales/{sale}/dead-events/replay", "replayEvents", "Try all of them again", &[(200, "EventsDue", "how many")], SALE),
    plain("post", "/admin/v1/sales/{sale}/dead-events/{event}/replay", "replayEvent", "Try one of them again", &[(200, "EventDue", "1, or 0 if it was due")],
        &["no_such_sale", "no_such_event", "unavailable", "not_ready"]),
    Operation { parameters: PAGE, ..plain("get", "/admin/v1/sales/{sale}/dead-letters", "listDeadLetters", "Orders set aside", &[(200, "DeadLetters", "a page")],
        &["no_such_sale", "invalid_request", "unavailable", "not_ready"]) },
    Operation { parameters: PAGE, body: Some("ReplayRequest?"), ..plain("post", "/admin/v1/sales/{sale}/dead-letters/replay", "replayLetters", "Replay a page of them",
        &[(200, "Replays", "what came of each")], &["no_such_sale", "invalid_request", "invalid_body", "unavailable", "not_ready"]) },
    Operation { body: Some("ReplayRequest?"), ..plain("post", "/admin/v1/sales/{sale}/dead-letters/{letter}/replay", "replayLetter", "Replay one of them",
        &[(200, "Replay", "what came of it")], &["no_such_sale", "no_such_letter", "invalid_body", "unavailable", "not_ready"]) },
    plain("get", "/admin/v1/payments/reconcile", "checkBooks", "Check the payment books", &[(200, "Books", "what was found")], &["unavailable", "not_ready"]),
    plain("post", "/admin/v1/reload", "reload", "Read the configuration again: apply all of it, or change nothing", &[(200, "Reloaded", "it is in force")],
        &["bad_configuration", "restart_needed"]),
    plain("get", "/admin/v1/backup", "showBackup", "How the backup stands", &[(200, "Backup", "its state")], &[]),
    Operation { body: Some("BackupRequest"), ..plain("post", "/admin/v1/backup", "beginBackup", "Begin a backup into a folder of the node", &[(202, "Backup", "begun")],
        &["no_backup_here", "backup_running", "invalid_document"]) },
];
