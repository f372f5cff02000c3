//! What each series is, for whoever reads `/metrics` without the documents: one line a family.

use metrics::describe_gauge;

/// Family and text. `docs/operating/metrics.md` has the same list with the labels; a test holds the page against it.
const HELP: &[(&str, &str)] = &[
    ("penstock_build_info", "Always 1"),
    (
        "penstock_requests_total",
        "Requests answered; errors are server_error, upstream_error, timeout, unavailable",
    ),
    ("penstock_requests_in_flight", "Requests being worked on"),
    ("penstock_connections_open", "Client connections"),
    ("penstock_connections_total", "Client connections accepted"),
    ("penstock_tls_handshakes_total", "Handshakes with clients"),
    (
        "penstock_tls_cert_not_after_timestamp_seconds",
        "When a certificate ends",
    ),
    (
        "penstock_config_generation",
        "Configurations that this process has had; the one of its start is 1",
    ),
    (
        "penstock_config_reloads_total",
        "Times the configuration was read again",
    ),
    (
        "penstock_access_log_dropped_total",
        "Access lines given up because the log could not keep up",
    ),
    (
        "penstock_ratelimit_decisions_total",
        "What token buckets decided",
    ),
    ("penstock_ratelimit_keys", "Clients a limiter remembers"),
    (
        "penstock_circuit_breaker_state",
        "1 for the state a breaker is in",
    ),
    (
        "penstock_circuit_breaker_transitions_total",
        "Changes of a breaker's state",
    ),
    (
        "penstock_circuit_breaker_rejected_total",
        "Requests an open breaker kept away",
    ),
    ("penstock_upstream_requests_total", "Attempts at the shop"),
    (
        "penstock_upstream_connections",
        "Pooled connections, active and idle",
    ),
    ("penstock_upstream_connects_total", "Connections opened"),
    (
        "penstock_upstream_evicted_total",
        "Requests that lost their place in a full pool because their clients were late",
    ),
    (
        "penstock_connections_refused_total",
        "Connections of an address that had its share while the process was getting full",
    ),
    (
        "penstock_upstream_retries_total",
        "Second and later attempts",
    ),
    ("penstock_sale_state", "1 for the state a sale is in"),
    (
        "penstock_sale_purchases_total",
        "What buyers were told; a cart counts once",
    ),
    (
        "penstock_sale_purchase_duration_seconds",
        "Time of a purchase inside the gateway",
    ),
    (
        "penstock_sale_batch_size",
        "Purchases in one call of the store",
    ),
    (
        "penstock_stock_initial_units",
        "Stock and restocks; the same on every node that shares a store, so take the max",
    ),
    ("penstock_stock_available_units", "For sale"),
    ("penstock_stock_reserved_units", "Ordered, not paid"),
    ("penstock_stock_sold_units", "Paid"),
    (
        "penstock_stock_transfers_total",
        "Movements between segments: arrived, empty, unfinished (any node ends it later)",
    ),
    (
        "penstock_stock_transferred_units_total",
        "Units that arrived",
    ),
    (
        "penstock_order_waiters",
        "Buyers who wait for news now: order, request, events",
    ),
    ("penstock_order_waits_total", "How waits ended"),
    (
        "penstock_order_watch_round_seconds",
        "One question to the ledger for all followed orders",
    ),
    (
        "penstock_orders_released_total",
        "Orders returned: expired, cancelled",
    ),
    (
        "penstock_settlement_orders_total",
        "Orders through the ledger",
    ),
    ("penstock_settlement_batch_seconds", "One transaction of it"),
    (
        "penstock_settlement_stale_epochs_total",
        "Batches of an epoch that the ledger has left; some during a rebuild, more only if this node sells from a store that was rebuilt elsewhere",
    ),
    (
        "penstock_settlement_queue_depth",
        "Accepted orders that wait for the ledger",
    ),
    (
        "penstock_settlement_oldest_age_seconds",
        "Age of the oldest of them",
    ),
    (
        "penstock_settlement_dead_letters",
        "Orders set aside that wait for a person",
    ),
    ("penstock_dead_letter_replays_total", "Replays of them"),
    (
        "penstock_downstream_deliveries_total",
        "Tries at the receiver",
    ),
    ("penstock_downstream_pending", "Events it has not taken yet"),
    (
        "penstock_downstream_dead_events",
        "Events given up that wait for a person",
    ),
    (
        "penstock_recovery_is_leader",
        "1 on the node that holds the recovery lease",
    ),
    (
        "penstock_recovery_waiting_segments",
        "Segments that could not be rebuilt at the last look",
    ),
    ("penstock_recovery_rebuilds_total", "Segments rebuilt"),
    (
        "penstock_recovery_failures_total",
        "Rebuilds that came to no end and are tried again",
    ),
    ("penstock_recovery_rebuild_seconds", "One rebuild"),
    (
        "penstock_invariant_violations_total",
        "Promises found broken",
    ),
    (
        "penstock_journal_writable",
        "Embedded store: 0 while it refuses purchases because of its disk",
    ),
    (
        "penstock_journal_errors_total",
        "Times it began to: full, failed",
    ),
    (
        "penstock_journal_sync_seconds",
        "One write that is on the disk",
    ),
    ("penstock_journal_bytes_total", "Bytes appended"),
    ("penstock_snapshot_bytes", "Size of the newest snapshot"),
    ("penstock_snapshot_seconds", "Writing one, beside the sale"),
    (
        "penstock_snapshot_pause_seconds",
        "How long the sale stood still for it",
    ),
    (
        "penstock_snapshot_failures_total",
        "Snapshots that were not written",
    ),
    (
        "penstock_snapshot_fallbacks_total",
        "Damaged snapshots passed over at a start",
    ),
    (
        "penstock_store_replay_seconds",
        "Reading snapshot and journal at the last start",
    ),
    (
        "penstock_store_clock_skew_seconds",
        "Wall clock minus the store's clock",
    ),
    ("penstock_payment_attempts_total", "Charges tried"),
    (
        "penstock_payment_duration_seconds",
        "How long a channel took",
    ),
    (
        "penstock_payment_amount_minor_total",
        "Money captured, minor units",
    ),
    (
        "penstock_payment_in_doubt",
        "Charges whose outcome is not known yet",
    ),
    (
        "penstock_payment_idempotent_replays_total",
        "Requests answered from the record of an earlier one",
    ),
    (
        "penstock_payment_late_refunds_total",
        "Money sent back because the order had been returned",
    ),
];

/// Tells the recorder. A description belongs to the name whatever the kind of the series, so one macro does for all.
pub(super) fn describe() {
    for (name, text) in HELP {
        describe_gauge!(*name, *text);
    }
}
