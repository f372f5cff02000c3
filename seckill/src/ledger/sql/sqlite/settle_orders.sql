-- One batch of orders, $5 being a JSON array of arrays. $1 sale, $2 sku, $3 segment, $4 now.
INSERT INTO order_orders (order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status,
                          reason, created_at_ms, pay_by_ms, settled_at_ms, intent, fingerprint,
                          version, metadata)
SELECT r.value ->> 0, k.sale, k.sku, $3, r.value ->> 1, r.value ->> 2, r.value ->> 3, (r.value ->> 3) * k.price_minor,
       s.currency, r.value ->> 6,
       CASE r.value ->> 6 WHEN 'refused' THEN 'oversold' WHEN 'released' THEN 'returned' ELSE '' END,
       r.value ->> 4, CASE WHEN k.held_until_ms > 0 THEN k.held_until_ms ELSE r.value ->> 5 END, $4, '', r.value ->> 7,
       CASE r.value ->> 6 WHEN 'reserved' THEN 1 ELSE 2 END, r.value ->> 8
FROM sale_skus k
JOIN sale_sales s ON s.sale = k.sale
JOIN json_each($5) r
WHERE k.sale = $1 AND k.sku = $2
ON CONFLICT DO NOTHING
RETURNING order_id
