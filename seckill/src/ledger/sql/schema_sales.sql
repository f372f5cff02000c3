-- Drafts, limits and who may buy.

-- draft or published.
ALTER TABLE sale_sales ADD COLUMN stage TEXT NOT NULL DEFAULT 'published';
-- Grows with every change of the sale's document.
ALTER TABLE sale_sales ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
-- 0 where only the buyer limit bounds an order.
ALTER TABLE sale_sales ADD COLUMN order_limit BIGINT NOT NULL DEFAULT 0;
-- open, allow_list or token.
ALTER TABLE sale_sales ADD COLUMN admission TEXT NOT NULL DEFAULT 'open';

-- The lists of sales (allow, block): their size, and the number of their last change.
CREATE TABLE sale_lists (
    sale    TEXT   NOT NULL,
    list    TEXT   NOT NULL,
    version BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    PRIMARY KEY (sale, list)
);

-- Who is on a list (is_listed = 1) or was (0), and with which change of the list he came or went.
CREATE TABLE sale_listed (
    sale      TEXT   NOT NULL,
    list      TEXT   NOT NULL,
    buyer     TEXT   NOT NULL,
    is_listed BIGINT NOT NULL,
    version   BIGINT NOT NULL,
    PRIMARY KEY (sale, list, buyer)
);

-- What a node reads: what came after the place it has read up to.
CREATE INDEX sale_listed_news ON sale_listed (sale, list, version, buyer);

-- The lottery of a sale: its rules as JSON, '' where there is none; and whether it still takes entries (open, sealed).
ALTER TABLE sale_sales ADD COLUMN lottery TEXT NOT NULL DEFAULT '';
ALTER TABLE sale_sales ADD COLUMN draw TEXT NOT NULL DEFAULT 'open';

CREATE TABLE sale_entries (
    sale  TEXT   NOT NULL,
    buyer TEXT   NOT NULL,
    nonce TEXT   NOT NULL,
    entry TEXT   NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (sale, buyer)
);

-- The published order of the entries.
CREATE UNIQUE INDEX sale_entries_order ON sale_entries (sale, entry);

-- One draw a sale, ever. Made when it is sealed; drawn_at_ms is 0 until it is drawn.
CREATE TABLE sale_draws (
    sale        TEXT   NOT NULL PRIMARY KEY,
    seed        TEXT   NOT NULL,
    beacon      TEXT   NOT NULL,
    entries     BIGINT NOT NULL,
    root        TEXT   NOT NULL,
    drawn_at_ms BIGINT NOT NULL
);

CREATE TABLE sale_draw_rounds (
    sale  TEXT   NOT NULL,
    round BIGINT NOT NULL,
    first BIGINT NOT NULL,
    count BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (sale, round)
);

-- The slots of a sale as JSON, '' where its skus are none.
ALTER TABLE sale_sales ADD COLUMN slots TEXT NOT NULL DEFAULT '';
-- Until when an order that costs nothing is held, from the transaction that settles it on; 0 where orders are paid for.
ALTER TABLE sale_skus ADD COLUMN held_until_ms BIGINT NOT NULL DEFAULT 0;

-- The one-time code of a booking: a keyed hash of the last one, how many there were, tries at it, and when it was used.
CREATE TABLE sale_checkins (
    order_id         TEXT   NOT NULL PRIMARY KEY,
    sale             TEXT   NOT NULL,
    mac              TEXT   NOT NULL,
    codes            BIGINT NOT NULL,
    attempts         BIGINT NOT NULL,
    checked_in_at_ms BIGINT NOT NULL
);
