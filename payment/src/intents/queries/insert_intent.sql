INSERT INTO pay_intents (id, version, status, amount_minor, currency, received_minor, payment_method, reference, metadata, details,
                         client_secret, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
