-- Intents after $1, up to and with $2.
-- The condition of the index pay_charges_live stands in the join word for word: SQLite uses a partial index only then, and without it
-- each intent scans all charges.
-- Both sides of the join name the range, or PostgreSQL may read all charges for a piece of the intents.
-- A succeeded intent has exactly one succeeded charge; any other has none, but a canceled one whose late money went back.
SELECT i.id AS id, i.status AS status, COUNT(c.id) AS charges
FROM pay_intents i
LEFT JOIN pay_charges c ON c.intent = i.id AND c.intent > $1 AND c.intent <= $2
    AND c.status = 'succeeded' AND c.status IN ('pending', 'unknown', 'succeeded')
WHERE i.id > $1 AND i.id <= $2
GROUP BY i.id, i.status
HAVING COUNT(c.id) > CASE i.status WHEN 'succeeded' THEN 1 WHEN 'canceled' THEN 1 ELSE 0 END
    OR (i.status = 'succeeded' AND COUNT(c.id) = 0)
LIMIT 50
