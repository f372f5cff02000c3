SELECT id, version, status, amount_minor, currency, received_minor, payment_method, reference, metadata, details,
       client_secret, latest_charge, last_error, cancellation_reason, canceled_at_ms, created_ms
FROM pay_intents
WHERE id = $1
