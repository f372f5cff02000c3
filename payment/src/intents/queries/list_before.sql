SELECT id, version, status, amount_minor, currency, received_minor, payment_method, reference, metadata, details,
       client_secret, latest_charge, last_error, cancellation_reason, canceled_at_ms, created_ms
FROM pay_intents
WHERE (created_ms, id) > ($1, $2) AND created_ms >= $3 AND created_ms <= $4
ORDER BY created_ms, id
LIMIT $5
