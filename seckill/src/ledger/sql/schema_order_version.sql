-- Grows with every change of `status`: what buyers are told never goes back to a lower one (INV-ORDER-5).
ALTER TABLE order_orders ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- Letters can be replayed: the order if it could be read, how often it was tried, and how it ended ('' while it waits).
ALTER TABLE order_dead_letters ADD COLUMN order_id TEXT NOT NULL DEFAULT '';
ALTER TABLE order_dead_letters ADD COLUMN replays BIGINT NOT NULL DEFAULT 0;
ALTER TABLE order_dead_letters ADD COLUMN outcome TEXT NOT NULL DEFAULT '';

-- Events that were given up; few, and looked for by an operator.
CREATE INDEX order_outbox_dead ON order_outbox (order_id, step) WHERE dead_at_ms > 0;
