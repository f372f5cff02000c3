-- The events of the orders in $2, a JSON array of ids, which this transaction has inserted. $1 now.
INSERT INTO order_outbox (order_id, step, kind, created_at_ms, next_at_ms)
SELECT order_id, 1, CASE status WHEN 'reserved' THEN 'settled' ELSE status END, $1, $1
FROM order_orders
WHERE order_id IN (SELECT value FROM json_each($2))
