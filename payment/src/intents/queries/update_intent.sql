UPDATE pay_intents
SET version = version + 1, status = $3, received_minor = $4, payment_method = $5, latest_charge = $6, last_error = $7,
    cancellation_reason = $8, canceled_at_ms = $9
WHERE id = $1 AND version = $2
