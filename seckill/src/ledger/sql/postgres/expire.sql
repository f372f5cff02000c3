-- Releases unpaid orders. $1 now, $2 how many. An order that somebody is paying or releasing at this moment is passed over; the
-- next sweep sees what became of it.
WITH due AS MATERIALIZED (
    SELECT order_id AS id
    FROM order_orders
    WHERE status = 'reserved' AND pay_by_ms <= $1
    ORDER BY pay_by_ms, order_id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE order_orders
SET status = 'released', reason = 'expired', version = version + 1
FROM due
WHERE order_id = due.id AND status = 'reserved'
RETURNING order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status, reason, created_at_ms,
          pay_by_ms, settled_at_ms, intent, fingerprint, version, metadata
