INSERT INTO pay_transfers (id, kind, debit_account, credit_account, currency, amount_minor, reference, created_ms)
VALUES ($1, 'pending', $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
