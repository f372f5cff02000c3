-- Grows with every change of `status`: what buyers are told never goes back to a lower one (INV-ORDER-5).
ALTER TABLE order_orders ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
