UPDATE pay_refunds
SET next_try_ms = $2
WHERE charge IN (
    SELECT charge FROM pay_refunds
    WHERE status = 'pending' AND next_try_ms <= $1
    ORDER BY next_try_ms
    LIMIT $3
) AND status = 'pending' AND next_try_ms <= $1
RETURNING charge, intent, channel, payment_method, amount_minor, currency, tries
