-- What the shop sent with the purchase, a JSON object of strings; NULL where it sent nothing. The one column that may be NULL: an order
-- without metadata then takes no room for it.
ALTER TABLE order_orders ADD COLUMN metadata TEXT;
