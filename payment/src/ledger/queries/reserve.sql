UPDATE pay_balances
SET available_minor = available_minor - $2
WHERE account = $1 AND available_minor >= $2
