-- An entry of a lottery that takes entries. $1 sale, $2 buyer, $3 nonce, $4 entry, $5 now. SQLite has one writer: no seal can be in
-- between.
INSERT INTO sale_entries (sale, buyer, nonce, entry, at_ms)
SELECT sale, $2, $3, $4, $5
FROM sale_sales
WHERE sale = $1 AND stage = 'published' AND gate <> 'closed' AND draw = 'open'
ON CONFLICT DO NOTHING
