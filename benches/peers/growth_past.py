"""The past of growth.py: one sale, one order and one payment in a SQLite ledger, copied a month back."""

import os
import re
import sqlite3
import time

PAST_MS = 30 * 24 * 3600 * 1000
# The rows of a sale, and those of one paid order.
SALE_TABLES = ("sale_sales", "sale_skus", "sale_segments")
TABLES = (*SALE_TABLES, "order_orders", "pay_intents", "pay_charges", "pay_transfers", "pay_entries", "pay_events")
ID, DIGITS = re.compile(r"(?<=_)0[0-9a-z]{25}"), "0123456789abcdefghjkmnpqrstvwxyz"


def copied(column, value):
    """SQL of a copy's value: times a month back, each id with a time of then and the number of the copy."""
    if column.endswith("_ms") and (value or 0) > PAST_MS:
        return str(value - PAST_MS)
    if not isinstance(value, str):
        return "NULL" if value is None else str(value)
    def then(found):
        ms = sum(DIGITS.index(digit) << 5 * place for place, digit in enumerate(found[0][9::-1])) - PAST_MS
        return "".join(DIGITS[ms >> 5 * place & 31] for place in range(9, -1, -1)) + "\0number\0" + found[0][18:]
    parts = {"first": "past-\0sale\0", "buyer-0": "buyer-\0number\0"}.get(value, ID.sub(then, value)).split("\0")
    return " || ".join(part if place % 2 else "'" + part.replace("'", "''") + "'" for place, part in enumerate(parts))


def grow(ledger, orders, orders_a_sale):
    """Copies the one sale, order and payment."""
    db, statements = sqlite3.connect(ledger), []
    for table in TABLES:
        rows, length = db.execute(f"SELECT * FROM {table}"), 1 if table in SALE_TABLES else orders_a_sale
        changed = {"audited_at_ms": ":audited", "stock": str(orders_a_sale), "total": str(orders_a_sale), "sold": str(orders_a_sale)}
        names = [column[0] for column in rows.description]
        for row in rows:
            values = ", ".join(changed.get(name) or copied(name, value) for name, value in zip(names, row))
            numbers = f"WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {length})"
            numbered = "(SELECT printf('%08x', :first + i) number, printf('%06d', :first) sale FROM n)"
            statements.append(f"{numbers} INSERT INTO {table} SELECT {values} FROM {numbered}")
    db.execute("PRAGMA synchronous = off")
    for first in range(0, orders, orders_a_sale):
        for statement in statements:
            db.execute(statement, {"first": first, "audited": int(time.time() * 1000) - PAST_MS + 7_200_000})
    db.execute("UPDATE pay_balances SET available_minor = available_minor * (? + 1)", [orders])
    db.commit()
    db.close()
    # Or the first purchases wait for the disk to take in the copies.
    os.sync()
