-- A transfer whose source or destination did not answer. It waits by itself, and holds up no other pair of the sku's segments.
ALTER TABLE sale_transfers ADD COLUMN stuck BIGINT NOT NULL DEFAULT 0;

-- One transfer of a sku at a time, whichever node begins it, beside those that are stuck.
DROP INDEX sale_transfers_open;
CREATE UNIQUE INDEX sale_transfers_open ON sale_transfers (sale, sku) WHERE state IN ('pending', 'moving') AND stuck = 0;

-- One of a pair, stuck or not.
CREATE UNIQUE INDEX sale_transfers_pair ON sale_transfers (sale, sku, source, destination) WHERE state IN ('pending', 'moving');
