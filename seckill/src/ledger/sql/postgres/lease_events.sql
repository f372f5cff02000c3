-- Leases due events. $1 now, $2 end of the lease, $3 how many. Rows that another node is leasing or recording are passed over:
-- waiting for them would deadlock with a node that waits for ours.
WITH due AS MATERIALIZED (
    SELECT o.order_id, o.step
    FROM order_outbox o
    WHERE o.delivered_at_ms = 0 AND o.dead_at_ms = 0 AND o.next_at_ms <= $1
      AND NOT EXISTS (SELECT 1 FROM order_outbox e WHERE e.order_id = o.order_id AND e.step < o.step
                      AND e.delivered_at_ms = 0 AND e.dead_at_ms = 0)
    ORDER BY o.next_at_ms
    LIMIT $3
    FOR UPDATE OF o SKIP LOCKED
)
UPDATE order_outbox o
SET attempts = o.attempts + 1, next_at_ms = $2
FROM due
WHERE o.order_id = due.order_id AND o.step = due.step
RETURNING o.order_id, o.step, o.kind, o.created_at_ms, o.attempts
