-- The effects of the orders in $2, a JSON array of ids, which this transaction has inserted. $1 now.
INSERT INTO order_effects (order_id, action, sale, sku, segment, created_at_ms)
SELECT order_id, 'release', sale, sku, segment, $1
FROM order_orders
WHERE order_id IN (SELECT value FROM json_each($2)) AND status = 'refused'
ON CONFLICT DO NOTHING
