-- The tables of payment, in one dialect for SQLite and PostgreSQL: BIGINT and TEXT only, times in unix milliseconds,
-- amounts in ISO 4217 minor units. Earlier releases have made these tables without counting a step, so nothing here minds what is there.

CREATE TABLE IF NOT EXISTS pay_intents (
    id                  TEXT   NOT NULL PRIMARY KEY,
    version             BIGINT NOT NULL,
    status              TEXT   NOT NULL,
    amount_minor        BIGINT NOT NULL CHECK (amount_minor > 0),
    currency            TEXT   NOT NULL,
    received_minor      BIGINT NOT NULL CHECK (received_minor >= 0 AND received_minor <= amount_minor),
    payment_method      TEXT,
    reference           TEXT,
    metadata            TEXT   NOT NULL,
    details             TEXT   NOT NULL,
    client_secret       TEXT   NOT NULL,
    latest_charge       TEXT,
    last_error          TEXT,
    cancellation_reason TEXT,
    canceled_at_ms      BIGINT,
    created_ms          BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS pay_intents_created ON pay_intents (created_ms, id);

-- One row per try to take the money. It outlives the process that made it: the resolver finishes what was left open.
CREATE TABLE IF NOT EXISTS pay_charges (
    id              TEXT   NOT NULL PRIMARY KEY,
    intent          TEXT   NOT NULL,
    status          TEXT   NOT NULL CHECK (status IN ('pending', 'unknown', 'succeeded', 'failed')),
    channel         TEXT   NOT NULL,
    payment_method  TEXT   NOT NULL,
    amount_minor    BIGINT NOT NULL,
    currency        TEXT   NOT NULL,
    idempotency_key TEXT,
    queries         BIGINT NOT NULL,
    next_query_ms   BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL,
    resolved_ms     BIGINT
);

-- INV-PAY-2 by constraint: never two live charges of an intent, never two that took money.
CREATE UNIQUE INDEX IF NOT EXISTS pay_charges_live ON pay_charges (intent) WHERE status IN ('pending', 'unknown', 'succeeded');

CREATE INDEX IF NOT EXISTS pay_charges_open ON pay_charges (next_query_ms) WHERE status IN ('pending', 'unknown');

-- Money that came too late and goes back. One row per charge, so it goes back once.
CREATE TABLE IF NOT EXISTS pay_refunds (
    charge         TEXT   NOT NULL PRIMARY KEY,
    intent         TEXT   NOT NULL,
    status         TEXT   NOT NULL CHECK (status IN ('pending', 'succeeded')),
    channel        TEXT   NOT NULL,
    payment_method TEXT   NOT NULL,
    amount_minor   BIGINT NOT NULL,
    currency       TEXT   NOT NULL,
    tries          BIGINT NOT NULL,
    next_try_ms    BIGINT NOT NULL,
    created_ms     BIGINT NOT NULL,
    resolved_ms    BIGINT
);

CREATE INDEX IF NOT EXISTS pay_refunds_open ON pay_refunds (next_try_ms) WHERE status = 'pending';

-- Immutable: a pending transfer is resolved by another row (post or void) that names it, and by one only.
CREATE TABLE IF NOT EXISTS pay_transfers (
    id             TEXT   NOT NULL PRIMARY KEY,
    kind           TEXT   NOT NULL CHECK (kind IN ('pending', 'post', 'void')),
    pending_id     TEXT   UNIQUE,
    debit_account  TEXT   NOT NULL,
    credit_account TEXT   NOT NULL,
    currency       TEXT   NOT NULL,
    amount_minor   BIGINT NOT NULL CHECK (amount_minor > 0),
    reference      TEXT   NOT NULL,
    created_ms     BIGINT NOT NULL,
    CHECK ((kind = 'pending') = (pending_id IS NULL)),
    CHECK (debit_account <> credit_account)
);

-- The legs of a transfer. Resolving one writes its pending amounts again with the sign turned, so every column only ever adds up.
CREATE TABLE IF NOT EXISTS pay_entries (
    transfer       TEXT   NOT NULL,
    leg            BIGINT NOT NULL,
    account        TEXT   NOT NULL,
    currency       TEXT   NOT NULL,
    pending_debit  BIGINT NOT NULL,
    pending_credit BIGINT NOT NULL,
    posted_debit   BIGINT NOT NULL,
    posted_credit  BIGINT NOT NULL,
    PRIMARY KEY (transfer, leg)
);

-- What a guarded account can still give: posted credits less posted debits less pending debits. INV-LEDGER-2 by constraint.
CREATE TABLE IF NOT EXISTS pay_balances (
    account         TEXT   NOT NULL PRIMARY KEY,
    currency        TEXT   NOT NULL,
    available_minor BIGINT NOT NULL CHECK (available_minor >= 0)
);

-- status and body are null while the first request is still at work.
CREATE TABLE IF NOT EXISTS pay_idempotency (
    key         TEXT   NOT NULL PRIMARY KEY,
    fingerprint TEXT   NOT NULL,
    status      BIGINT,
    body        TEXT,
    created_ms  BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS pay_idempotency_created ON pay_idempotency (created_ms);

-- Append-only: one row per change of an intent, with the intent as it was right after it.
CREATE TABLE IF NOT EXISTS pay_events (
    id              TEXT   NOT NULL PRIMARY KEY,
    type            TEXT   NOT NULL,
    intent          TEXT   NOT NULL,
    version         BIGINT NOT NULL,
    data            TEXT   NOT NULL,
    request_id      TEXT,
    idempotency_key TEXT,
    created_ms      BIGINT NOT NULL,
    UNIQUE (intent, version)
);
