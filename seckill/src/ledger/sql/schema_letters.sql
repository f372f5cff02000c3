-- The order of a letter as the store holds it (JSON), so that a rebuilt store can go on holding its units; '' where none are held.
ALTER TABLE order_dead_letters ADD COLUMN held TEXT NOT NULL DEFAULT '';
-- Closed letters are kept; those that wait are counted every second.
CREATE INDEX order_dead_letters_open ON order_dead_letters (sale) WHERE outcome = '';
