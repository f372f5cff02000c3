-- What the entries of the transfers after $1, up to and with $2, add to each account.
SELECT account, currency,
       CAST(SUM(pending_debit) AS BIGINT)  AS pending_debit,
       CAST(SUM(pending_credit) AS BIGINT) AS pending_credit,
       CAST(SUM(posted_debit) AS BIGINT)   AS posted_debit,
       CAST(SUM(posted_credit) AS BIGINT)  AS posted_credit
FROM pay_entries
WHERE transfer > $1 AND transfer <= $2
GROUP BY account, currency
