-- Guarded accounts: what the balance says, and what the entries say. They must agree and not be below zero.
SELECT account, available_minor, folded_minor
FROM (
    SELECT account,
           CAST(SUM(available_minor) AS BIGINT) AS available_minor,
           CAST(SUM(folded_minor) AS BIGINT)    AS folded_minor
    FROM (
        SELECT account, available_minor, CAST(0 AS BIGINT) AS folded_minor
        FROM pay_balances
        UNION ALL
        SELECT account, CAST(0 AS BIGINT), posted_credit - posted_debit - pending_debit
        FROM pay_entries
        WHERE account LIKE 'merchant:%'
    ) AS parts
    GROUP BY account
) AS sums
WHERE available_minor <> folded_minor OR available_minor < 0 OR folded_minor < 0
ORDER BY account
LIMIT 50
