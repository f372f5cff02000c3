-- Leases due events. $1 now, $2 end of the lease, $3 how many. SQLite has one writer: nobody can be in between.
UPDATE order_outbox
SET attempts = attempts + 1, next_at_ms = $2
WHERE (order_id, step) IN (
    SELECT o.order_id, o.step
    FROM order_outbox o
    WHERE o.delivered_at_ms = 0 AND o.dead_at_ms = 0 AND o.next_at_ms <= $1
      AND NOT EXISTS (SELECT 1 FROM order_outbox e WHERE e.order_id = o.order_id AND e.step < o.step
                      AND e.delivered_at_ms = 0 AND e.dead_at_ms = 0)
    ORDER BY o.next_at_ms
    LIMIT $3)
RETURNING order_id, step, kind, created_at_ms, attempts
