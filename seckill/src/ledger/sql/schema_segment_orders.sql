-- A rebuild and a listing read the orders of one segment page by page in the order of their ids. Without this each page sorted all
-- orders of the sku anew.
CREATE INDEX order_orders_segment ON order_orders (sale, sku, segment, order_id);
