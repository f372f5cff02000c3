-- A refund has an id of its own, so that a charge can have several. All there were so far gave late money back.
-- `transfer` names the move on the books, which for those carries the charge's id and is never written again.

CREATE TABLE pay_refunds_by_id (
    id             TEXT   NOT NULL PRIMARY KEY,
    charge         TEXT   NOT NULL,
    intent         TEXT   NOT NULL,
    purpose        TEXT   NOT NULL,
    transfer       TEXT   NOT NULL UNIQUE,
    status         TEXT   NOT NULL,
    channel        TEXT   NOT NULL,
    payment_method TEXT   NOT NULL,
    amount_minor   BIGINT NOT NULL CHECK (amount_minor > 0),
    currency       TEXT   NOT NULL,
    tries          BIGINT NOT NULL,
    next_try_ms    BIGINT NOT NULL,
    created_ms     BIGINT NOT NULL,
    resolved_ms    BIGINT
);

INSERT INTO pay_refunds_by_id (id, charge, intent, purpose, transfer, status, channel, payment_method, amount_minor, currency, tries,
                               next_try_ms, created_ms, resolved_ms)
SELECT 're_' || SUBSTR(charge, 4), charge, intent, 'late', 'refund:' || charge, status, channel, payment_method, amount_minor, currency,
       tries, next_try_ms, created_ms, resolved_ms
FROM pay_refunds;

DROP TABLE pay_refunds;

ALTER TABLE pay_refunds_by_id RENAME TO pay_refunds;

-- Late money goes back once: INV-PAY-3 by constraint.
CREATE UNIQUE INDEX pay_refunds_late ON pay_refunds (charge) WHERE purpose = 'late';

CREATE INDEX pay_refunds_open ON pay_refunds (next_try_ms) WHERE status = 'pending';
