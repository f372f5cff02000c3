-- When all orders of a sale were audited after its end; 0 before. A sale is read whole once, whichever node does it.
ALTER TABLE sale_sales ADD COLUMN audited_at_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX sale_sales_unaudited ON sale_sales (sale) WHERE audited_at_ms = 0;
