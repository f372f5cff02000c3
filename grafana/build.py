#!/usr/bin/env python3
"""Writes dashboards/*.json: the dashboards are this file, the JSON is what Grafana reads. What panels are made of is in panels.py.

    grafana/build.py            write the JSON
    grafana/build.py --check    exit 1 if the JSON is not what this file would write
"""

import json
import pathlib
import sys

from panels import (
    ACCEPTED, ACTIVE, ANSWERED, BLUE, DELIVERED, ERRORS, GREEN, GREY, HALF_OPEN, IN_USE, NOT_DECLINED, OPEN, ORANGE, PURPLE, RED, ROUTE, SALE, SALE_STATES, SEL,
    SETTLED, SUCCEEDED, UPSTREAM, YELLOW, Board, dashboard, gauge, quantile, quantiles, rate, stock, stock_left,
)

FOLDER = pathlib.Path(__file__).parent / "dashboards"


def verdict(b):
    b.row("Is the sale well?")
    b.stat("Answered without error", "Share of requests answered without an error of ours or of the shop. Limited, sold out and refused count as answered.",
           "percentunit", f"1 - ({rate('penstock_requests_total', ERRORS)} / ({rate('penstock_requests_total')} > 0))",
           steps=[(None, RED), (0.99, ORANGE), (0.999, GREEN)], decimals=2)
    b.stat("Requests", "Requests answered per second, every route and outcome.", "reqps", rate("penstock_requests_total"), steps=[(None, BLUE)])
    b.stat("p99 of a purchase", "99th percentile of an accepted purchase, measured inside the gateway from first byte in to answer out.", "s",
           quantile(0.99, "penstock_sale_purchase_duration_seconds", matchers=ACCEPTED), steps=[(None, GREEN), (0.1, ORANGE), (0.5, RED)])
    b.stat("Stock left", "Units of the chosen sales that can still be bought; those of ended sales cannot.", "short", stock_left(), steps=[(None, GREY), (1, GREEN)],
           mappings=[{"type": "value", "options": {"0": {"text": "sold out", "index": 0}}}])
    b.stat("Oversold", "Units sold or reserved beyond the stock, the worst sku of the range. Anything but 0 is INV-STOCK-1 broken: pause the sale.", "short",
           f'clamp_min(max (penstock_stock_sold_units{{{SEL},sale=~"$sale"}} + penstock_stock_reserved_units{{{SEL},sale=~"$sale"}}'
           f' - penstock_stock_initial_units{{{SEL},sale=~"$sale"}}), 0)', steps=[(None, GREEN), (1, RED)], calc="max")
    b.stat("Invariants broken", "Invariant violations the gateway itself noticed in the range. Anything but 0 needs a person now.", "short",
           rate("penstock_invariant_violations_total", fn="increase"), steps=[(None, GREEN), (0.001, RED)], calc="max")
    b.stat("Oldest unsettled order", "Age of the oldest accepted order that is not in the order ledger yet.", "s",
           gauge("penstock_settlement_oldest_age_seconds", agg="max"), steps=[(None, GREEN), (2, ORANGE), (5, RED)])
    b.stat("Breakers open", "Endpoints of the shop that get no traffic because their circuit breaker is open.", "short",
           gauge("penstock_circuit_breaker_state", OPEN), steps=[(None, GREEN), (1, RED)])


def signals(b):
    b.row("Alerts and the four golden signals")
    b.alerts("Alerts", "What fires or is about to. Each alert links to its runbook.", w=6)
    b.lines("Traffic", "Requests per second, by what the client got.", "reqps", [(rate("penstock_requests_total", by="outcome"), "{{outcome}}")], w=6, stack=True)
    b.lines("Errors", "How many times faster than allowed the 99.9 % budget burns, per route. 1 spends it in exactly 30 days; 14.4 pages.", "none",
            [(f"({rate('penstock_requests_total', ERRORS, 'route')} / ({rate('penstock_requests_total', by='route')} > 0)) / 0.001", "{{route}}")], w=6, colours=False)
    b.lines("Latency", "Percentiles of all requests that were answered well.", "s",
            [(quantile(q, "penstock_request_duration_seconds", matchers=ANSWERED), f"p{q * 100:g}") for q in (0.5, 0.99, 0.999)], w=6, colours=False, log=True)
    b.lines("Saturation", "Share of each bound that is in use. At 1 the next one waits or is refused. The dashboards Edge, Stores and Process show each by itself.", "percentunit", [
        (f"{gauge('penstock_connections_open')} / {gauge('penstock_connections_max')}", "client connections"),
        (f"max ({gauge('penstock_upstream_connections', ACTIVE, 'upstream')} / {gauge('penstock_upstream_connections_max', by='upstream')})", "fullest upstream pool"),
        (f"{gauge('penstock_control_requests')} / {gauge('penstock_control_requests_max')}", "control plane"),
        (f"max ({gauge('penstock_database_connections', IN_USE, 'pool')} / {gauge('penstock_database_connections_max', by='pool')})", "database"),
        (f"max ({gauge('process_open_fds', by='instance')} / {gauge('process_max_fds', by='instance')})", "file descriptors")], w=6, colours=False)
    b.lines("Purchases", "What buyers were told, per second. During a peak most answers are sold_out; unknown and frozen should stay at 0.", "reqps",
            [(rate("penstock_sale_purchases_total", by="outcome"), "{{outcome}}")], w=6, stack=True)
    stock_panel(b, w=6)
    b.lines("Money", "Minor units captured per second, by currency.", "none", [(rate("penstock_payment_amount_minor_total", by="currency"), "{{currency}}")], w=6, colours=False)


def stock_panel(b, w=8):
    b.lines("Stock", "Units available, reserved and sold, stacked; the top edge must lie on the line of the stock (INV-STOCK-2).", "short",
            [(stock("sold"), "sold"), (stock("reserved"), "reserved"), (stock("available"), "available"), (stock("initial"), "stock")], w=w, stack=True, colours=False)
    # The stock itself is a line over the stack, not a layer of it.
    b.panels[-1]["fieldConfig"]["overrides"] = [{"matcher": {"id": "byName", "options": "stock"}, "properties": [
        {"id": "custom.stacking", "value": {"mode": "none", "group": "B"}}, {"id": "custom.fillOpacity", "value": 0},
        {"id": "custom.lineWidth", "value": 2}, {"id": "color", "value": {"mode": "fixed", "fixedColor": RED}}]}]


def sale(b):
    b.row("What buyers get")
    b.lines("Purchases by outcome", "What buyers were told, per second; a cart counts once. During a peak most answers are sold_out; not_admitted are buyers whom a list, "
            "a token or a draw keeps out. unknown and frozen should stay at 0: see Stuck in docs/operating/runbooks.md.",
            "reqps", [(rate("penstock_sale_purchases_total", SALE, "outcome"), "{{outcome}}")], stack=True)
    b.lines("Accepted by sale", "Orders per second that each sale took. Of several sales at once this tells which one sells.", "reqps",
            [(rate("penstock_sale_purchases_total", f"{SALE},{ACCEPTED}", "sale"), "{{sale}}")], stack=True, colours=False)
    b.lines("Funnel", "Orders per second at each step: accepted by the store (of the chosen sales), written to the ledger, paid, returned unpaid (of all).", "ops",
            [(rate("penstock_sale_purchases_total", f"{SALE},{ACCEPTED}"), "accepted"), (rate("penstock_settlement_orders_total", SETTLED), "settled"),
             (rate("penstock_payment_attempts_total", SUCCEEDED), "paid"), (rate("penstock_orders_released_total"), "returned")], colours=False)
    stock_panel(b)
    b.heatmap("Purchase latency", "How long purchases took, all outcomes; each column is one interval, darker is more.", "penstock_sale_purchase_duration_seconds")
    b.lines("Sold out, p99", "99th percentile of the answer sold_out, which comes from memory and must stay cheap.", "s",
            [(quantile(0.99, "penstock_sale_purchase_duration_seconds", matchers='outcome="sold_out"'), "p99")], colours=False, alert="PenstockSoldOutSlow")
    b.lines("Purchase latency by outcome", "Percentiles per outcome, never averaged: cheap refusals must not hide slow winners.", "s",
            quantiles("penstock_sale_purchase_duration_seconds", "outcome"), colours=False, log=True)
    b.lines("Purchases per store call", "How many purchases one atomic step of the store carried, 128 at most. It grows with the peak; that is what keeps the store ahead. "
            "At 128 all the time while latency grows, the store is the limit: more segments.", "short",
            quantiles("penstock_sale_batch_size"), colours=False)
    b.timeline("Sale state", "Where each chosen sale stands, as the clock and the operator have it. Paused answers 503 until somebody resumes it.",
               " or ".join(f'max by (sale) (penstock_sale_state{{{SEL},sale=~"$sale",state="{state}"}}) * {n} > 0' for n, state in enumerate(SALE_STATES, 1)),
               "{{sale}}", [("", GREY), ("draft", GREY), ("scheduled", BLUE), ("open", GREEN), ("paused", ORANGE), ("ended", PURPLE)], w=12)
    b.lines("Purchases that wait", "Purchases in front of the store. 4,096 fit a segment; beyond that buyers get 503.", "short",
            [(f"sum by (sale) (penstock_sale_purchases_waiting{{{SEL},sale=~\"$sale\"}})", "{{sale}}")], w=8, colours=False)


def waiting(b):
    b.row("Buyers who wait")
    b.lines("Buyers who wait for news", "Long polls (order, request) and event streams (events) held open right now. Thousands are normal after a peak; per node "
            "at most per_node of [seckill.waiting].", "short", [(gauge("penstock_order_waiters", by="kind"), "{{kind}}")], w=8, colours=False)
    b.lines("How waits end", "changed and unchanged are answers, left is a client that went away. refused_node: the node is full, raise per_node or add nodes; "
            "refused_buyer: one buyer waits more often than per_buyer allows; drained: a node stops.", "ops",
            [(rate("penstock_order_waits_total", by="outcome"), "{{outcome}}")], w=8)


def settlement(b):
    b.row("Settlement and orders")
    b.lines("Queue for the ledger", "Accepted orders waiting for the order ledger. It rises in a peak and falls back to 0 in seconds; if not, see Queue lag.", "short",
            [(gauge("penstock_settlement_queue_depth", agg="max"), "orders")], w=6)
    b.lines("Oldest age", "Age of the oldest waiting order. A deep queue that stays young is a peak; an old one is a wedge.", "s",
            [(gauge("penstock_settlement_oldest_age_seconds", agg="max"), "oldest")], w=6, alert="PenstockQueueLag")
    b.lines("Settled orders by outcome", "Ledger writes per second. refused means the ledger stopped an oversell; dead means an entry was set aside.", "ops",
            [(rate("penstock_settlement_orders_total", by="outcome"), "{{outcome}}"),
             (rate("penstock_settlement_stale_epochs_total"), "stale epoch")], w=6)
    b.lines("Settlement batch", "Time of one ledger transaction.", "s", quantiles("penstock_settlement_batch_seconds"), w=6, colours=False)
    b.lines("Returned orders", "Orders whose stock went back, by reason. A wave of expired comes one pay_within after T0 and is normal.", "ops",
            [(rate("penstock_orders_released_total", by="reason"), "{{reason}}")], w=6)
    b.lines("Dead letters", "Orders that could not be settled and wait for a person. 0 is normal; otherwise penstock dead-letters list SALE, then replay.", "short",
            [(gauge("penstock_settlement_dead_letters", agg="max"), "waiting")], w=6, colours=False)
    b.lines("Dead letters replayed", "Replays by outcome, in the interval. settled and duplicate close a letter; the runbook (Order set aside) explains the others.", "short",
            [(rate("penstock_dead_letter_replays_total", by="outcome", fn="increase"), "{{outcome}}")], w=6, colours=False)
    b.lines("News round", "Time of one question to the ledger for all orders that somebody waits for. Above 60 ms news comes later, so that the ledger is not run over.", "s",
            quantiles("penstock_order_watch_round_seconds"), w=6, colours=False)


def downstream(b):
    b.row("Downstream: the shop or its broker")
    b.lines("Waiting events", "Settled, paid, released and refused orders that the receiver has not taken yet. A backlog after a peak is normal if it falls; "
            "flat and above 0 is Delivery stalled.", "short", [(gauge("penstock_downstream_pending", agg="max"), "events")], w=6, alert="PenstockDeliveryBacklog")
    b.lines("Time to drain", "How long the backlog takes at the present speed. No line: nothing is delivered at all. If it grows, the receiver or rate of [seckill.downstream] "
            "is below what the sale brings.", "s",
            [(f"{gauge('penstock_downstream_pending', agg='max')} / ({rate('penstock_downstream_deliveries_total', DELIVERED)} > 0)", "to drain")], w=6, colours=False)
    b.lines("Deliveries", "Tries per second by outcome. retried failed and comes again later, a receiver that asks for peace (429, Retry-After) included; held had no connection "
            "or no room and lost no try; dead was given up after 90 tries.", "ops",
            [(rate("penstock_downstream_deliveries_total", by="outcome"), "{{outcome}}")], w=6)
    b.lines("Given up", "Events that nobody will be told without a person. 0 is normal; mend the receiver, then penstock dead-letters replay-events SALE.", "short",
            [(gauge("penstock_downstream_dead_events", agg="max"), "events")], w=6, colours=False)


def invariants(b):
    b.row("Invariants")
    b.lines("Violations", "Findings of the reconciler and of the running gateway in the interval, by invariant (docs/invariants.md). Flat 0 or an incident. A suspicion of oversell "
            "freezes the segment: it shows among Rebuilds with the cause frozen.", "short",
            [(rate("penstock_invariant_violations_total", by="invariant", fn="increase"), "{{invariant}}")], w=12, colours=False)
    b.lines("Units out of balance", "sold + reserved + available - stock, per sku. Below 0 units are lost, above 0 they are sold twice.", "short",
            [(f'max by (sale, sku) (penstock_stock_sold_units{{{SEL},sale=~"$sale"}} + penstock_stock_reserved_units{{{SEL},sale=~"$sale"}}'
              f' + penstock_stock_available_units{{{SEL},sale=~"$sale"}} - penstock_stock_initial_units{{{SEL},sale=~"$sale"}})', "{{sale}} {{sku}}")], w=12, colours=False, minimum=None)  # lost units show below zero


def edge(b):
    b.row("Each route: rate, errors, duration")
    b.lines("Requests by route", "Requests per second of each route.", "reqps", [(rate("penstock_requests_total", ROUTE, "route"), "{{route}}")], stack=True, colours=False)
    b.lines("Errors by route", "Share of each route's requests that failed through us or the shop. Limited, sold out and refused are answers, no errors.", "percentunit",
            [(f"{rate('penstock_requests_total', ERRORS + ',' + ROUTE, 'route')} / ({rate('penstock_requests_total', ROUTE, 'route')} > 0)", "{{route}}")],
            colours=False, alert="PenstockFastBurn")
    b.lines("Latency by route", "50th and 99th percentile of each route's requests that were answered well, answers of the shop included.", "s",
            [(quantile(q, "penstock_request_duration_seconds", "route", f"{ROUTE},{ANSWERED}"), f"{{{{route}}}} p{q * 100:g}") for q in (0.5, 0.99)], colours=False, log=True)
    b.lines("Requests by outcome", "Requests per second of the chosen routes, by what the client got.", "reqps",
            [(rate("penstock_requests_total", ROUTE, "outcome"), "{{outcome}}")], stack=True)
    b.heatmap("Request latency", "All requests of the chosen routes; each column is one interval, darker is more.", "penstock_request_duration_seconds", matchers=ROUTE)
    b.lines("Request latency by outcome", "Percentiles per outcome: cheap refusals must not hide slow answers.", "s",
            quantiles("penstock_request_duration_seconds", "outcome", ROUTE), colours=False, log=True)
    b.lines("Error budget burn", "How many times faster than allowed the 99.9 % budget burns, per route. 1 spends it in exactly 30 days; 14.4 pages.", "none",
            [(f"({rate('penstock_requests_total', ERRORS + ',' + ROUTE, 'route')} / ({rate('penstock_requests_total', ROUTE, 'route')} > 0)) / 0.001", "{{route}}")],
            w=12, colours=False)
    b.lines("Error budget left", "Share of the 30 days' budget (0.1 % of the requests may fail) that is left if it was whole three days ago. Below 0 it is spent: then PenstockSlowBurn is not far.", "percentunit",
            [(f"1 - sum by (route) (route:request_errors:ratio_rate3d{{job=~\"$job\",{ROUTE}}}) / 0.001 * 3 / 30", "{{route}}")], w=12, colours=False, minimum=None)


def protection(b):
    b.row("Limits")
    b.lines("Limiter decisions", "What each limiter decided, per second.", "reqps",
            [(rate("penstock_ratelimit_decisions_total", by="limiter, decision"), "{{limiter}} {{decision}}")], w=8)
    b.lines("Clients tracked", "Keys each limiter holds. It is bounded; a plateau at the bound means the oldest are being forgotten.", "short",
            [(gauge("penstock_ratelimit_keys", by="limiter"), "{{limiter}}")], w=8, colours=False)
    b.lines("Limiter tables", "Share of each limiter's table that is taken. At 1 the client that was away longest is forgotten.", "percentunit",
            [(f"{gauge('penstock_ratelimit_keys', by='limiter')} / {gauge('penstock_ratelimit_keys_max', by='limiter')}", "{{limiter}}")], w=8, colours=False)


def upstream(b):
    b.row("Upstreams: the shop's own servers, endpoint by endpoint")
    b.lines("Upstream answers", "Requests sent to the shop per second, by what came of them.", "reqps",
            [(rate("penstock_upstream_requests_total", UPSTREAM, "upstream, outcome"), "{{upstream}} {{outcome}}")], w=6)
    b.lines("Upstream latency", "Time the shop took. The gap to the edge's own latency is what the gateway adds.", "s",
            quantiles("penstock_upstream_duration_seconds", "upstream", UPSTREAM), w=6, colours=False, log=True)
    b.lines("Upstream connections", "Pooled connections to the shop, in use and idle.", "short",
            [(gauge("penstock_upstream_connections", UPSTREAM, "upstream, state"), "{{upstream}} {{state}}")], w=6, colours=False)
    b.lines("New connections and retries", "Connections opened (a busy pool opens few), connections refused, requests sent again, places taken from late clients.", "ops",
            [(rate("penstock_upstream_connects_total", UPSTREAM, "upstream, result"), "{{upstream}} connect {{result}}"),
             (rate("penstock_upstream_retries_total", UPSTREAM, "upstream"), "{{upstream}} retry"),
             (rate("penstock_upstream_evicted_total", UPSTREAM, "upstream"), "{{upstream}} evicted")], w=6)
    b.lines("Upstream pools", "Share of the connections to each upstream that are in use. At 1 the client that is late loses its place, or the request is refused.", "percentunit",
            [(f"{gauge('penstock_upstream_connections', ACTIVE + ',' + UPSTREAM, 'upstream')} / {gauge('penstock_upstream_connections_max', UPSTREAM, 'upstream')}", "{{upstream}}")],
            w=6, colours=False)
    b.timeline("Endpoint health", "What each endpoint's health check says; the worst instance wins.",
               gauge("penstock_upstream_endpoint_healthy", UPSTREAM, "upstream, endpoint", "min"), "{{upstream}} {{endpoint}}", [("unhealthy", RED), ("healthy", GREEN)], w=6)
    b.timeline("Breaker state", "State of each endpoint's breaker; the worst instance wins.",
               f"{gauge('penstock_circuit_breaker_state', OPEN + ',' + UPSTREAM, 'upstream, endpoint', 'max')} * 2 > 0"
               f" or {gauge('penstock_circuit_breaker_state', HALF_OPEN + ',' + UPSTREAM, 'upstream, endpoint', 'max')}",
               "{{upstream}} {{endpoint}}", [("closed", GREEN), ("half open", YELLOW), ("open", RED)], w=6)
    b.lines("Breaker activity", "Requests refused by an open breaker, and changes of state.", "ops",
            [(rate("penstock_circuit_breaker_rejected_total", UPSTREAM, "upstream"), "{{upstream}} refused"),
             (rate("penstock_circuit_breaker_transitions_total", UPSTREAM, "upstream, to"), "{{upstream}} to {{to}}")], w=6, colours=False)


def transport(b):
    b.row("Transport")
    b.lines("Requests in flight", "Requests being worked on right now. By Little's law: rate times mean latency.", "short",
            [(gauge("penstock_requests_in_flight", by="instance"), "{{instance}}")], w=6, colours=False)
    b.lines("Connections open", "Client connections, by protocol.", "short", [(gauge("penstock_connections_open", by="protocol"), "{{protocol}}")], w=6, colours=False)
    b.lines("Connections accepted", "New client connections per second, by protocol, and those refused because their address had its share.", "cps",
            [(rate("penstock_connections_total", by="protocol"), "{{protocol}}"),
             (rate("penstock_connections_refused_total"), "refused")], w=6, colours=False)
    b.lines("TLS handshakes", "Handshakes per second. Failures come from scanners and from expired certificates.", "ops",
            [(rate("penstock_tls_handshakes_total", by="result"), "{{result}}")], w=6)
    b.lines("Certificates", "Time until each certificate ends.", "s",
            [(f"{gauge('penstock_tls_cert_not_after_timestamp_seconds', by='server_name', agg='min')} - time()", "{{server_name}}")], w=6, colours=False, alert="PenstockCertExpiring")


def databases(b):
    b.row("Store and database: calls, failures, waits, connections")
    b.lines("Store calls", "Calls of the stock store per second, by what they are.", "ops", [(rate("penstock_store_call_seconds_count", by="operation"), "{{operation}}")], w=6, colours=False)
    b.lines("Store latency", "Time of one call of the stock store.", "s", [(quantile(0.99, "penstock_store_call_seconds", "operation"), "{{operation}} p99")], w=6, colours=False, log=True)
    b.lines("Failed calls", "Calls of the store and of the database that failed, per second.", "ops",
            [(rate("penstock_store_errors_total", by="error"), "store {{error}}"), (rate("penstock_database_errors_total", by="operation"), "database {{operation}}")], w=6, colours=False)
    b.lines("Database calls", "Calls of the order ledger per second, by what they are.", "ops", [(rate("penstock_database_call_seconds_count", by="operation"), "{{operation}}")], w=6, colours=False)
    b.lines("Database latency", "Time that one call had a connection.", "s", [(quantile(0.99, "penstock_database_call_seconds", "operation"), "{{operation}} p99")], w=8, colours=False, log=True)
    b.lines("Wait for a connection", "Time that calls waited for a connection. It grows before anything fails.", "s",
            [(quantile(0.99, "penstock_database_wait_seconds", "pool"), "{{pool}} p99")], w=8, colours=False, log=True)
    b.lines("Connections", "Connections to the database, and the most there may be.", "short",
            [(gauge("penstock_database_connections", by="pool, state"), "{{pool}} {{state}}"), (gauge("penstock_database_connections_max", by="pool"), "{{pool}} most")], w=8, colours=False)


def embedded(b):
    b.row("Embedded store")
    b.timeline("Journal writable", "Whether the node can write its journal. If not, it refuses purchases before anything has happened and goes on by itself when there is room: "
               "Journal not writable.", f"penstock_journal_writable{{{SEL}}}", "{{instance}}", [("not writable", RED), ("writable", GREEN)], w=6)
    b.lines("Journal sync", "Time until a batch of orders is on disk; part of every accepted purchase at durable. Below 10 ms is a good disk; above 100 ms at p99 see Journal slow.", "s",
            quantiles("penstock_journal_sync_seconds"), w=6, colours=False, alert="PenstockJournalSlow")
    b.lines("Journal written", "Bytes appended to the journal per second. After snapshot_every of them a snapshot is written and older journals go.", "Bps",
            [(rate("penstock_journal_bytes_total"), "written")], w=6)
    b.lines("Disk troubles", "In the interval: journals that could not be written (full, failed), snapshots that were not written (the journal grows until one is), and damaged snapshots "
            "passed over at a start. 0 is normal; anything else is the disk.", "short",
            [(rate("penstock_journal_errors_total", by="kind", fn="increase"), "journal {{kind}}"),
             (rate("penstock_snapshot_failures_total", fn="increase"), "snapshot failed"),
             (rate("penstock_snapshot_fallbacks_total", fn="increase"), "snapshot damaged")], w=6, colours=False)
    b.lines("Snapshot size", "Size of the newest snapshot: about 116 bytes an order in memory. On the disk are up to four times as much.", "bytes",
            [(gauge("penstock_snapshot_bytes", by="instance", agg="max"), "{{instance}}")], w=6, colours=False)
    b.lines("Snapshot time", "How long writing one took beside the sale, and how long the sale stood still for it (pause). Pauses are milliseconds; more is a busy disk.", "s",
            [(quantile(0.99, "penstock_snapshot_seconds"), "written p99"), (quantile(0.99, "penstock_snapshot_pause_seconds"), "pause p99")], w=6, colours=False)
    b.lines("Replay at the start", "How long the last start read snapshot and journal. About a second a million orders; lower snapshot_every if it is too long.", "s",
            [(gauge("penstock_store_replay_seconds", by="instance", agg="max"), "{{instance}}")], w=6, colours=False)
    b.lines("Clock skew", "How far the wall clock is from the store's. 0 is normal. Below 0 it was set back, above 0 it jumped ahead; the sale's window follows the store. See The clock.", "s",
            [(gauge("penstock_store_clock_skew_seconds", by="instance", agg="max"), "{{instance}}")], w=6, colours=False, minimum=None)  # a clock that was set back shows below zero


def recovery(b):
    b.row("Segments: recovery and transfers")
    b.lines("Segments that wait", "Segments that sell nothing and could not be rebuilt at the last look; their buyers get 503. 0 is normal, a moment above 0 after a failover too. "
            "If it stays: Segment waits in docs/operating/runbooks.md.", "short", [(gauge("penstock_recovery_waiting_segments", agg="max"), "segments")], w=6, colours=False)
    b.timeline("Who may rebuild", "The node that holds the recovery lease. Exactly one is normal; the epoch of each rebuild is in its log. None: no worker runs, or the lease's "
               "keeper (recovery_locks, else the ledger) does not answer.", gauge("penstock_recovery_is_leader", by="instance", agg="max"), "{{instance}}",
               [("no", GREY), ("holds the lease", GREEN)], w=6)
    b.lines("Rebuilds", "Segments rebuilt from the ledger in the interval, by cause, and rebuilds that failed and are tried again every second. None is normal. lost and doubtful follow "
            "a failover or restart of the store; frozen follows a suspicion of the reconciler: run penstock reconcile.", "short",
            [(rate("penstock_recovery_rebuilds_total", by="cause", fn="increase"), "{{cause}}"),
             (rate("penstock_recovery_failures_total", fn="increase"), "failed")], w=6, colours=False)
    b.lines("Rebuild time", "From the diagnosis to the first sale under the new epoch. It grows with the orders of the segment; this long its buyers were refused.", "s",
            quantiles("penstock_recovery_rebuild_seconds"), w=6, colours=False)
    b.lines("Transfers", "Movements of units between segments of a sku, per second. Most come near the end of a sale's stock. empty found nothing left to move. "
            "unfinished stays open in the ledger until any node ends it: steady above 0, look at store and ledger.", "ops",
            [(rate("penstock_stock_transfers_total", by="outcome"), "{{outcome}}")], w=12)
    b.lines("Units moved", "Units that arrived in the segment whose buyers asked for them, per second.", "ops",
            [(rate("penstock_stock_transferred_units_total"), "units")], w=12, colours=False)


def payments(b):
    b.row("Payments")
    b.lines("Attempts", "Charges tried per second, by channel and outcome. unknown is neither success nor failure; a query resolves it.", "ops",
            [(rate("penstock_payment_attempts_total", by="channel, outcome"), "{{channel}} {{outcome}}")], w=6)
    b.lines("Success", "Share of attempts that succeeded, leaving out cards the bank declined.", "percentunit",
            [(f"{rate('penstock_payment_attempts_total', SUCCEEDED, 'channel')}"
              f" / ({rate('penstock_payment_attempts_total', NOT_DECLINED, 'channel')} > 0)", "{{channel}}")], w=6, colours=False, alert="PenstockPaymentSuccessLow")
    b.lines("Channel latency", "Time a channel took to answer.", "s", quantiles("penstock_payment_duration_seconds", "channel"), w=6, colours=False, log=True)
    b.lines("In doubt", "Charges whose outcome is not known yet. It may rise; it must come back to 0.", "short",
            [(gauge("penstock_payment_in_doubt", agg="max"), "in doubt")], w=6, colours=False)
    b.lines("Money taken", "Minor units captured per second, by currency.", "none",
            [(rate("penstock_payment_amount_minor_total", by="currency"), "{{currency}}")], w=12, colours=False)
    b.lines("Replays and late refunds", "Requests answered from the idempotency record, and money sent back because it came after the order was returned.", "ops",
            [(rate("penstock_payment_idempotent_replays_total"), "replayed"), (rate("penstock_payment_late_refunds_total"), "late refund")], w=12, colours=False)


def saturation(b):
    b.row("Saturation: how full is what is bounded")
    b.lines("Bounds in use", "Share of each bound that is in use. At 1 the next one waits or is refused: client connections, requests of the control plane, buyers who wait.",
            "percentunit", [
                (f"{gauge('penstock_connections_open')} / {gauge('penstock_connections_max')}", "client connections"),
                (f"{gauge('penstock_control_requests')} / {gauge('penstock_control_requests_max')}", "control plane"),
                (f"{gauge('penstock_order_waiters')} / {gauge('penstock_order_waiters_max')}", "waiting buyers")], w=12, colours=False)


def process(b):
    b.row("Process")
    b.lines("Memory", "Resident memory of each node. With the embedded store below 200 MB per million orders in memory; a growth without orders is a leak: keep a profile, restart.", "bytes",
            [(gauge("process_resident_memory_bytes", by="instance"), "{{instance}}"),
             (gauge("process_virtual_memory_bytes", by="instance"), "{{instance}} address space")], w=12, colours=False)
    b.lines("CPU", "Cores in use by each node. At the number of its cores every latency grows: limit the crowd earlier, or add nodes.", "none",
            [(rate("process_cpu_seconds_total", by="instance"), "{{instance}}")], w=12, colours=False)
    b.lines("File descriptors", "Share of the allowed descriptors that are open; every connection is one. Above 80 % raise LimitNOFILE or lower max_connections.", "percentunit",
            [(f"{gauge('process_open_fds', by='instance')} / {gauge('process_max_fds', by='instance')}", "{{instance}}")], w=12, colours=False)
    b.lines("Threads", "Threads of each node: one per core, the control plane's, the stores' own. It does not move with the load.", "short",
            [(gauge("process_threads", by="instance"), "{{instance}}")], w=12, colours=False)
    b.lines("Age of the process", "Time since each process began. A fall is a restart.", "s",
            [(f"time() - {gauge('process_start_time_seconds', by='instance', agg='max')}", "{{instance}}")], w=12, colours=False)


def self_monitoring(b):
    b.row("The monitoring itself")
    b.timeline("Scraped", "Whether Prometheus reaches each instance.", f"up{{{SEL}}}", "{{instance}}", [("down", RED), ("up", GREEN)], w=4)
    b.lines("Scrape time", "Time one scrape takes. Past half the interval the numbers start to lie.", "s", [(f"scrape_duration_seconds{{{SEL}}}", "{{instance}}")], w=5, colours=False, alert="PenstockScrapeSlow")
    b.lines("Samples per scrape", "Series each instance exports. Label sets are closed, so it moves only with the configuration and the number of sales.", "short",
            [(f"scrape_samples_scraped{{{SEL}}}", "{{instance}}")], w=5, colours=False)
    b.lines("Access lines dropped", "Access log lines given up because the log could not keep up. The request path never waits for the log.", "ops",
            [(rate("penstock_access_log_dropped_total", by="instance"), "{{instance}}")], w=5, colours=False)
    b.lines("Configuration", "How many configurations each process has had since its start, and reloads that were refused. Nodes that differ serve by different files.", "none",
            [(gauge("penstock_config_generation", by="instance", agg="max"), "{{instance}}"),
             (rate("penstock_config_reloads_total", 'result="refused"', by="instance"), "refused by {{instance}}")], w=5, colours=False)
    b.add("table", "Versions", "What runs where.", "short", [(gauge("penstock_build_info", by="instance, version", agg="max"), "")], w=5, fmt="table", instant=True,
          options={"showHeader": True, "cellHeight": "sm"})


# The first one is where an alert leads to.
BOARDS = [
    ("penstock", "Penstock", "Is the sale well? Where to look next if not.", ("sale",), (verdict, signals)),
    ("penstock-edge", "Penstock: edge", "Each route, each upstream and its endpoints, limits, connections.", ("route", "upstream"), (edge, upstream, protection, transport)),
    ("penstock-sale", "Penstock: sale", "Each sale: what buyers get, its stock, and its orders' way to the ledger and the shop.", ("sale",),
     (sale, settlement, downstream, waiting, invariants)),
    ("penstock-stores", "Penstock: stores", "Stock store, database, journal, segments.", (), (databases, embedded, recovery)),
    ("penstock-payments", "Penstock: payments", "Charges, channels, money.", (), (payments,)),
    ("penstock-process", "Penstock: process", "Each node: use, saturation, errors; and the monitoring itself.", (), (process, saturation, self_monitoring)),
]


def written():
    """The text of each file."""
    for uid, title, description, variables, parts in BOARDS:
        board = Board(uid, title, description, variables)
        for part in parts:
            part(board)
        yield FOLDER / f"{uid}.json", json.dumps(dashboard(board), indent=1, ensure_ascii=False) + "\n"


def main():
    files = dict(written())
    left = [path for path in FOLDER.glob("*.json") if path not in files]
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        if stale or left:
            sys.exit(f"{', '.join([*stale, *(path.name for path in left)])}: not what grafana/build.py writes; run it and commit the result")
        return
    for path in left:
        path.unlink()
    for path, text in files.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
