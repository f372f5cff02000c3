INSERT INTO pay_events (id, type, intent, version, data, request_id, idempotency_key, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
