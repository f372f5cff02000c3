INSERT INTO pay_charges (id, intent, status, channel, payment_method, amount_minor, currency, idempotency_key, queries, next_query_ms,
                         created_ms)
VALUES ($1, $2, 'pending', $3, $4, $5, $6, $7, 0, $8, $9)
