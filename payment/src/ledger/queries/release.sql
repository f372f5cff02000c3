INSERT INTO pay_balances (account, currency, available_minor)
VALUES ($1, $2, $3)
ON CONFLICT (account) DO UPDATE SET available_minor = pay_balances.available_minor + excluded.available_minor
