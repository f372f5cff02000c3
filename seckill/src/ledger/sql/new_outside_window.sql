-- Orders after $1, up to and with $2, that were accepted outside the window of their sale.
SELECT o.sale, COUNT(*)
FROM order_orders o
JOIN sale_sales s ON s.sale = o.sale
WHERE o.order_id > $1 AND o.order_id <= $2 AND (o.created_at_ms < s.starts_at_ms OR o.created_at_ms >= s.ends_at_ms)
GROUP BY o.sale
