INSERT INTO pay_idempotency (key, fingerprint, status, body, created_ms)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
