-- At most one row ever: pending_id is unique.
INSERT INTO pay_transfers (id, kind, pending_id, debit_account, credit_account, currency, amount_minor, reference, created_ms)
SELECT $2, $3, id, debit_account, credit_account, currency, amount_minor, reference, $4
FROM pay_transfers
WHERE id = $1 AND kind = 'pending'
ON CONFLICT DO NOTHING
RETURNING debit_account, credit_account, currency, amount_minor
