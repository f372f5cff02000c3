-- Every transfer of a sku: counted before a sku is said to be empty, read by a rebuild.

CREATE INDEX sale_transfers_sku ON sale_transfers (sale, sku);
