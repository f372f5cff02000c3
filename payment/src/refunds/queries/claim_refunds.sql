UPDATE pay_refunds
SET next_try_ms = $2
WHERE id IN (
    SELECT id FROM pay_refunds
    WHERE status = 'pending' AND next_try_ms <= $1
    ORDER BY next_try_ms
    LIMIT $3
) AND status = 'pending' AND next_try_ms <= $1
RETURNING id, charge, intent, purpose, transfer, channel, payment_method, amount_minor, currency, tries
