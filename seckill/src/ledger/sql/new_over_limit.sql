-- Buyers with an order after $1, up to and with $2, whose live units of its sku are more than the limit of the sale.
SELECT n.sale, n.buyer, n.sku, CAST(SUM(o.quantity) AS BIGINT)
FROM (SELECT DISTINCT sale, sku, buyer FROM order_orders WHERE order_id > $1 AND order_id <= $2) AS n
JOIN order_orders o ON o.sale = n.sale AND o.sku = n.sku AND o.buyer = n.buyer
JOIN sale_sales s ON s.sale = n.sale
WHERE o.status IN ('reserved', 'paying', 'paid')
GROUP BY n.sale, n.buyer, n.sku, s.buyer_limit
HAVING SUM(o.quantity) > s.buyer_limit
LIMIT $3
