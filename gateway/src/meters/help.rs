//! What each series is, for a reader of `/metrics` without the documents: one line a family.

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
    (
        "penstock_connections_max",
        "Client connections that may be open at a time",
    ),
    ("penstock_connections_total", "Client connections accepted"),
    (
        "penstock_tls_handshakes_total",
        "TLS handshakes with clients",
    ),
    (
        "penstock_tls_cert_not_after_timestamp_seconds",
        "When a certificate ends, in unix time",
    ),
    (
        "penstock_config_generation",
        "Configurations this process has had; the one of its start is 1",
    ),
    (
        "penstock_config_reloads_total",
        "Times the configuration was read again: applied or refused",
    ),
    (
        "penstock_access_log_dropped_total",
        "Access log lines dropped because the log could not keep up",
    ),
    (
        "penstock_ratelimit_decisions_total",
        "What token buckets decided",
    ),
    ("penstock_ratelimit_keys", "Clients a limiter remembers"),
    (
        "penstock_ratelimit_keys_max",
        "Clients a limiter can remember before it forgets the oldest",
    ),
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
        "Requests refused by an open breaker",
    ),
    ("penstock_upstream_requests_total", "Attempts at the shop"),
    (
        "penstock_upstream_connections",
        "Pooled connections to upstreams, active and idle",
    ),
    (
        "penstock_upstream_connections_max",
        "Connections to an upstream that may be in use at a time, all cores together",
    ),
    (
        "penstock_upstream_endpoint_healthy",
        "0 while an endpoint fails its health check; 1 without one",
    ),
    (
        "penstock_upstream_connects_total",
        "Connections to upstreams opened",
    ),
    (
        "penstock_upstream_evicted_total",
        "Requests that lost their place in a full pool because their clients were slow",
    ),
    (
        "penstock_connections_refused_total",
        "Connections refused because their address had its share while the process was getting full",
    ),
    (
        "penstock_upstream_retries_total",
        "Second and later attempts",
    ),
    (
        "penstock_control_requests",
        "Requests being worked on by the control plane: payments, and what waits for SQL",
    ),
    (
        "penstock_control_requests_max",
        "Requests that the control plane takes at a time",
    ),
    ("penstock_sale_state", "1 for the state a sale is in"),
    (
        "penstock_sale_purchases_total",
        "What buyers were told; a cart counts once",
    ),
    (
        "penstock_sale_purchases_waiting",
        "Purchases that wait for the store; 4,096 fit a segment, more are refused (503)",
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
    (
        "penstock_stock_available_units",
        "Units that nobody has ordered; after the window's end nobody can any more",
    ),
    ("penstock_stock_reserved_units", "Units ordered, not paid"),
    ("penstock_stock_sold_units", "Units paid"),
    (
        "penstock_stock_transfers_total",
        "Transfers between segments: arrived, empty, unfinished (any node completes it later)",
    ),
    (
        "penstock_stock_transferred_units_total",
        "Units that transfers brought to their segment",
    ),
    (
        "penstock_order_waiters",
        "Buyers who are waiting for a change: order, request, events",
    ),
    (
        "penstock_order_waiters_max",
        "Buyers who may wait at a time",
    ),
    (
        "penstock_order_waits_total",
        "How waits for a change of an order ended",
    ),
    (
        "penstock_order_watch_round_seconds",
        "Time of one query to the ledger for all orders that somebody waits for",
    ),
    (
        "penstock_orders_released_total",
        "Orders returned: expired, cancelled",
    ),
    (
        "penstock_settlement_orders_total",
        "Orders that settlement has processed",
    ),
    (
        "penstock_settlement_batch_seconds",
        "Time of one transaction of settlement",
    ),
    (
        "penstock_settlement_stale_epochs_total",
        "Batches of an epoch that is over in the ledger; some during a rebuild, more only if this node sells from a store that was rebuilt elsewhere",
    ),
    (
        "penstock_settlement_queue_depth",
        "Accepted orders that wait for the ledger",
    ),
    (
        "penstock_settlement_oldest_age_seconds",
        "Age of the oldest order that waits for the ledger",
    ),
    (
        "penstock_settlement_dead_letters",
        "Orders set aside that wait for a person",
    ),
    (
        "penstock_dead_letter_replays_total",
        "Replays of orders set aside",
    ),
    (
        "penstock_downstream_deliveries_total",
        "Tries to deliver an event",
    ),
    (
        "penstock_downstream_pending",
        "Events that the receiver has not taken yet",
    ),
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
        "Rebuilds that failed and are tried again",
    ),
    ("penstock_recovery_rebuild_seconds", "Time of one rebuild"),
    (
        "penstock_invariant_violations_total",
        "Promises found broken",
    ),
    (
        "penstock_part_ready",
        "1 while this part of the node can do its work",
    ),
    (
        "penstock_store_call_seconds",
        "Time of one call of the stock store, Redis or embedded",
    ),
    (
        "penstock_store_errors_total",
        "Calls of the stock store that failed",
    ),
    (
        "penstock_database_call_seconds",
        "Time that a call of the order ledger had a connection: read and write are single statements, transaction is from begin to commit",
    ),
    (
        "penstock_database_errors_total",
        "Calls of the order ledger that failed, no connection in time included",
    ),
    (
        "penstock_database_wait_seconds",
        "Time that a call of the order ledger waited for a connection",
    ),
    (
        "penstock_database_connections",
        "Connections to the database: in_use, idle",
    ),
    (
        "penstock_database_connections_max",
        "Most connections to the database",
    ),
    (
        "penstock_journal_writable",
        "Embedded store: 0 while it refuses purchases because of its disk",
    ),
    (
        "penstock_journal_errors_total",
        "Times the embedded store began to refuse purchases: full, failed",
    ),
    (
        "penstock_journal_sync_seconds",
        "Time until one write is on the disk",
    ),
    (
        "penstock_journal_bytes_total",
        "Bytes appended to the journal",
    ),
    ("penstock_snapshot_bytes", "Size of the newest snapshot"),
    (
        "penstock_snapshot_seconds",
        "How long writing a snapshot took, while the sale went on",
    ),
    (
        "penstock_snapshot_pause_seconds",
        "How long the sale stood still for a snapshot",
    ),
    (
        "penstock_snapshot_failures_total",
        "Snapshots that were not written",
    ),
    (
        "penstock_snapshot_fallbacks_total",
        "Damaged snapshots skipped at a start",
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
        "How long a payment channel took",
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
        "Payment requests answered from the record of an earlier one",
    ),
    (
        "penstock_payment_late_refunds_total",
        "Money sent back because the order had been returned",
    ),
];

/// The text of a family.
pub(super) fn of(family: &str) -> Option<&'static str> {
    let found = HELP.iter().find(|(name, _)| *name == family);
    found.map(|(_, text)| *text)
}

/// Tells the recorder. A description belongs to the name whatever the kind of the series, so one macro does for all.
pub(super) fn describe() {
    for (name, text) in HELP {
        describe_gauge!(*name, *text);
    }
}
