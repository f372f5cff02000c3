SELECT currency,
       CAST(SUM(pending_debit) AS BIGINT)  AS pending_debit,
       CAST(SUM(pending_credit) AS BIGINT) AS pending_credit,
       CAST(SUM(posted_debit) AS BIGINT)   AS posted_debit,
       CAST(SUM(posted_credit) AS BIGINT)  AS posted_credit
FROM pay_entries
GROUP BY currency
HAVING SUM(pending_debit) <> SUM(pending_credit)
    OR SUM(posted_debit) <> SUM(posted_credit)
ORDER BY currency
