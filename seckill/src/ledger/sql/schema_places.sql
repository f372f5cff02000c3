-- The store that a segment was last seen whole in, as the configuration names it; '' while nobody has looked.
ALTER TABLE sale_segments ADD COLUMN place TEXT NOT NULL DEFAULT '';
