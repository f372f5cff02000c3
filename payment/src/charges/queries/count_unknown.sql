-- Once a second, so it must not grow with what is over: the condition of the index pay_charges_open, word for word.
SELECT COUNT(*)
FROM pay_charges
WHERE status IN ('pending', 'unknown') AND status = 'unknown'
