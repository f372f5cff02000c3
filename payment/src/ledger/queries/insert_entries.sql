INSERT INTO pay_entries (transfer, leg, account, currency, pending_debit, pending_credit, posted_debit, posted_credit)
VALUES ($1, 0, $2, $4, $5, 0, $6, 0),
       ($1, 1, $3, $4, 0, $5, 0, $6)
