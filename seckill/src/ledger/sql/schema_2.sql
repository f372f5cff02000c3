-- Sales in segments, with carts, at a durability of their own; rebuilds under an epoch.

ALTER TABLE sale_sales ADD COLUMN segments BIGINT NOT NULL DEFAULT 1;
ALTER TABLE sale_sales ADD COLUMN carts BIGINT NOT NULL DEFAULT 0;
-- '' where the store's own level holds.
ALTER TABLE sale_sales ADD COLUMN durability TEXT NOT NULL DEFAULT '';

-- The newest epoch of a segment: the fencing token of rebuilds, and of settlement by workers that have not heard of one.
ALTER TABLE sale_segments ADD COLUMN epoch BIGINT NOT NULL DEFAULT 1;

-- What a rebuilt store compares a replay with; the 64 bits of an unsigned number.
ALTER TABLE order_orders ADD COLUMN fingerprint BIGINT NOT NULL DEFAULT 0;

-- Units on their way from one segment of a sku to another. pending: asked for; moving: taken from `source`; done; cancelled.
CREATE TABLE sale_transfers (
    transfer_id   TEXT   NOT NULL PRIMARY KEY,
    sale          TEXT   NOT NULL,
    sku           TEXT   NOT NULL,
    source        BIGINT NOT NULL,
    destination   BIGINT NOT NULL,
    units         BIGINT NOT NULL,
    state         TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- One transfer of a sku at a time, whichever node begins it.
CREATE UNIQUE INDEX sale_transfers_open ON sale_transfers (sale, sku) WHERE state IN ('pending', 'moving');

-- Who may rebuild segments. `token` grows with every change of hands and fences the one before. `until_ms` only matters where
-- nothing better than a row keeps the lease (SQLite).
CREATE TABLE sale_leases (
    name     TEXT   NOT NULL PRIMARY KEY,
    token    BIGINT NOT NULL,
    owner    TEXT   NOT NULL,
    until_ms BIGINT NOT NULL
);
