DELETE FROM pay_idempotency
WHERE key IN (
    SELECT key FROM pay_idempotency
    WHERE created_ms < $1 AND status IS NOT NULL
    ORDER BY created_ms
    LIMIT $2
)
