-- The outer condition is checked again on a row that another claim has just moved on, so each goes to one claim.
UPDATE pay_charges
SET next_query_ms = $2
WHERE id IN (
    SELECT id FROM pay_charges
    WHERE status IN ('pending', 'unknown') AND next_query_ms <= $1
    ORDER BY next_query_ms
    LIMIT $3
) AND status IN ('pending', 'unknown') AND next_query_ms <= $1
RETURNING id, intent, channel, payment_method, amount_minor, currency, idempotency_key, queries AS tries
