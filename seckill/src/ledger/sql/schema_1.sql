-- The order ledger, for SQLite and PostgreSQL alike: BIGINT and TEXT only, times in unix milliseconds, '' and 0 where
-- others would write NULL.

CREATE TABLE IF NOT EXISTS sale_sales (
    sale          TEXT   NOT NULL PRIMARY KEY,
    starts_at_ms  BIGINT NOT NULL,
    ends_at_ms    BIGINT NOT NULL,
    pay_within_ms BIGINT NOT NULL,
    buyer_limit   BIGINT NOT NULL,
    currency      TEXT   NOT NULL,
    gate          TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- `sold` counts the units of live orders (reserved, paying, paid). The check is the second lock behind the guarded updates.
CREATE TABLE IF NOT EXISTS sale_skus (
    sale        TEXT   NOT NULL,
    sku         TEXT   NOT NULL,
    position    BIGINT NOT NULL,
    stock       BIGINT NOT NULL,
    total       BIGINT NOT NULL,
    sold        BIGINT NOT NULL DEFAULT 0,
    price_minor BIGINT NOT NULL,
    PRIMARY KEY (sale, sku),
    CHECK (sold >= 0 AND sold <= total)
);

CREATE TABLE IF NOT EXISTS sale_restocks (
    sale       TEXT   NOT NULL,
    sku        TEXT   NOT NULL,
    restock_id TEXT   NOT NULL,
    units      BIGINT NOT NULL,
    at_ms      BIGINT NOT NULL,
    PRIMARY KEY (sale, sku, restock_id)
);

-- Segments that were once open in the stock store.
CREATE TABLE IF NOT EXISTS sale_segments (
    sale         TEXT   NOT NULL,
    sku          TEXT   NOT NULL,
    segment      BIGINT NOT NULL,
    opened_at_ms BIGINT NOT NULL,
    PRIMARY KEY (sale, sku, segment)
);

-- The unique key is INV-ORDER-1: one order per request id, ever.
CREATE TABLE IF NOT EXISTS order_orders (
    order_id      TEXT   NOT NULL PRIMARY KEY,
    sale          TEXT   NOT NULL,
    sku           TEXT   NOT NULL,
    segment       BIGINT NOT NULL,
    buyer         TEXT   NOT NULL,
    request_id    TEXT   NOT NULL,
    quantity      BIGINT NOT NULL,
    amount_minor  BIGINT NOT NULL,
    currency      TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL,
    pay_by_ms     BIGINT NOT NULL,
    settled_at_ms BIGINT NOT NULL,
    intent        TEXT   NOT NULL,
    UNIQUE (sale, sku, buyer, request_id)
);

-- What the reaper reads.
CREATE INDEX IF NOT EXISTS order_orders_unpaid ON order_orders (pay_by_ms) WHERE status = 'reserved';

-- What the report counts, from the index alone.
CREATE INDEX IF NOT EXISTS order_orders_counts ON order_orders (sale, sku, status, quantity);

-- What the stock store must still be told. A row goes when the store has answered.
CREATE TABLE IF NOT EXISTS order_effects (
    order_id      TEXT   NOT NULL,
    action        TEXT   NOT NULL,
    sale          TEXT   NOT NULL,
    sku           TEXT   NOT NULL,
    segment       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (order_id, action)
);

-- Oldest first within a segment, and which segments there are.
CREATE INDEX IF NOT EXISTS order_effects_segment ON order_effects (sale, sku, segment, created_at_ms, order_id);

-- What the shop must still be told, in the order of `step` for each order.
CREATE TABLE IF NOT EXISTS order_outbox (
    order_id        TEXT   NOT NULL,
    step            BIGINT NOT NULL,
    kind            TEXT   NOT NULL,
    created_at_ms   BIGINT NOT NULL,
    attempts        BIGINT NOT NULL DEFAULT 0,
    next_at_ms      BIGINT NOT NULL,
    delivered_at_ms BIGINT NOT NULL DEFAULT 0,
    dead_at_ms      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, step)
);

CREATE INDEX IF NOT EXISTS order_outbox_pending ON order_outbox (next_at_ms)
    WHERE delivered_at_ms = 0 AND dead_at_ms = 0;

CREATE TABLE IF NOT EXISTS order_dead_letters (
    sale     TEXT   NOT NULL,
    sku      TEXT   NOT NULL,
    segment  BIGINT NOT NULL,
    position TEXT   NOT NULL,
    reason   TEXT   NOT NULL,
    raw      TEXT   NOT NULL,
    at_ms    BIGINT NOT NULL,
    PRIMARY KEY (sale, sku, segment, position)
);
