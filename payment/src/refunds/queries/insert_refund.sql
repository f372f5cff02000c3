INSERT INTO pay_refunds (id, charge, intent, purpose, transfer, status, channel, payment_method, amount_minor, currency, tries, next_try_ms,
                         created_ms)
VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, $8, $9, 0, $10, $11)
