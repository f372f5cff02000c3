-- One batch of orders, their events and effects in one statement. Each list is one text, an item a line.
-- $1 sale, $2 sku, $3 segment, $4 now, $5 order ids, $6 buyers, $7 request ids, $8 quantities, $9 created, $10 pay by,
-- $11 statuses, $12 whether events are written, $13 fingerprints, $14 metadata (no list at all, or empty lines, where there is none).
-- Answers the ids that were new, one a line.
WITH fresh AS (
    INSERT INTO order_orders (order_id, sale, sku, segment, buyer, request_id, quantity, amount_minor, currency, status,
                              reason, created_at_ms, pay_by_ms, settled_at_ms, intent, fingerprint,
                              version, metadata)
    SELECT r.order_id, k.sale, k.sku, $3, r.buyer, r.request_id, r.quantity, r.quantity * k.price_minor, s.currency, r.status,
           CASE r.status WHEN 'refused' THEN 'oversold' WHEN 'released' THEN 'returned' ELSE '' END,
           r.created_at_ms, CASE WHEN k.held_until_ms > 0 THEN k.held_until_ms ELSE r.pay_by_ms END, $4, '', r.fingerprint,
           CASE r.status WHEN 'reserved' THEN 1 ELSE 2 END, r.metadata
    FROM sale_skus k
    JOIN sale_sales s ON s.sale = k.sale
    CROSS JOIN unnest(string_to_array($5, E'\n'), string_to_array($6, E'\n'), string_to_array($7, E'\n'),
                      string_to_array($8, E'\n')::BIGINT[], string_to_array($9, E'\n')::BIGINT[],
                      string_to_array($10, E'\n')::BIGINT[], string_to_array($11, E'\n'), string_to_array($13, E'\n')::BIGINT[],
                      string_to_array($14, E'\n', ''))
        AS r (order_id, buyer, request_id, quantity, created_at_ms, pay_by_ms, status, fingerprint, metadata)
    WHERE k.sale = $1 AND k.sku = $2
    ON CONFLICT DO NOTHING
    RETURNING order_id, status
), events AS (
    INSERT INTO order_outbox (order_id, step, kind, created_at_ms, next_at_ms)
    SELECT order_id, 1, CASE status WHEN 'reserved' THEN 'settled' ELSE status END, $4, $4
    FROM fresh
    WHERE $12 = 1
), effects AS (
    INSERT INTO order_effects (order_id, action, sale, sku, segment, created_at_ms)
    SELECT order_id, 'release', $1, $2, $3, $4
    FROM fresh
    WHERE status = 'refused'
    ON CONFLICT DO NOTHING
)
SELECT COALESCE(string_agg(order_id, E'\n'), '') FROM fresh
