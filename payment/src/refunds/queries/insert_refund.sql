INSERT INTO pay_refunds (charge, intent, status, channel, payment_method, amount_minor, currency, tries, next_try_ms, created_ms)
VALUES ($1, $2, 'pending', $3, $4, $5, $6, 0, $7, $8)
