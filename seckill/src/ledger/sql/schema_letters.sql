-- The order of a letter as the store holds it (JSON), so that a rebuilt store can go on holding its units; '' where none are held.
ALTER TABLE order_dead_letters ADD COLUMN held TEXT NOT NULL DEFAULT '';
