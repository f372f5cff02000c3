-- Why an event was given up.
CREATE TABLE IF NOT EXISTS order_outbox_failures (
    order_id TEXT   NOT NULL,
    step     BIGINT NOT NULL,
    reason   TEXT   NOT NULL,
    PRIMARY KEY (order_id, step)
);
