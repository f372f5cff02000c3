-- Of the transfers after $1, up to and with $2:
-- a pending transfer has its amount pending on both sides; its resolution takes that back, and a post puts it in posted.
-- The second half finds entries without a transfer.
-- Both sides of a join name the range, or PostgreSQL may read the whole other table for a piece of this one.
SELECT t.id AS id, t.amount_minor AS amount_minor, t.currency AS currency
FROM pay_transfers t
LEFT JOIN pay_entries e ON e.transfer = t.id AND e.currency = t.currency AND e.transfer > $1 AND e.transfer <= $2
WHERE t.id > $1 AND t.id <= $2
GROUP BY t.id, t.kind, t.amount_minor, t.currency
HAVING COALESCE(SUM(e.pending_debit), 0)  <> CASE t.kind WHEN 'pending' THEN t.amount_minor ELSE -t.amount_minor END
    OR COALESCE(SUM(e.pending_credit), 0) <> CASE t.kind WHEN 'pending' THEN t.amount_minor ELSE -t.amount_minor END
    OR COALESCE(SUM(e.posted_debit), 0)   <> CASE t.kind WHEN 'post' THEN t.amount_minor ELSE 0 END
    OR COALESCE(SUM(e.posted_credit), 0)  <> CASE t.kind WHEN 'post' THEN t.amount_minor ELSE 0 END
UNION ALL
SELECT e.transfer AS id, CAST(0 AS BIGINT) AS amount_minor, e.currency AS currency
FROM pay_entries e
LEFT JOIN pay_transfers t ON t.id = e.transfer AND t.currency = e.currency AND t.id > $1 AND t.id <= $2
WHERE e.transfer > $1 AND e.transfer <= $2 AND t.id IS NULL
LIMIT 50
