-- Buyers with an order after $1, up to and with $2, whose live units of its sku are more than the limit of the sale.
-- Each buyer's units are a question of their own: in a join, PostgreSQL may read all orders there are for one piece of them.
SELECT b.sale, b.buyer, b.sku, b.units
FROM (
    SELECT n.sale, n.buyer, n.sku, (
        SELECT CAST(SUM(o.quantity) AS BIGINT) FROM order_orders o
        WHERE o.sale = n.sale AND o.sku = n.sku AND o.buyer = n.buyer AND o.status IN ('reserved', 'paying', 'paid')
    ) AS units
    FROM (SELECT DISTINCT sale, sku, buyer FROM order_orders WHERE order_id > $1 AND order_id <= $2) AS n
) AS b
JOIN sale_sales s ON s.sale = b.sale
WHERE b.units > s.buyer_limit
LIMIT $3
