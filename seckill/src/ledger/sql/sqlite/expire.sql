-- Releases unpaid orders. $1 now, $2 how many.
UPDATE order_orders
SET status = 'released', reason = 'expired', version = version + 1
WHERE order_id IN (
    SELECT order_id
    FROM order_orders
    WHERE status = 'reserved' AND pay_by_ms <= $1
    ORDER BY pay_by_ms, order_id
    LIMIT $2)
RETURNING order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status, reason, created_at_ms,
          pay_by_ms, settled_at_ms, intent, fingerprint, version, metadata
