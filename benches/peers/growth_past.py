"""The past of growth.py: one sale, one order and one payment in a ledger, copied a month back, in SQLite or in PostgreSQL."""

import json
import os
import re
import shutil
import sqlite3
import time

import peers

PAST_MS = 30 * 24 * 3600 * 1000
# What an order with its payment takes on the disk, with the events of the payment and without; PostgreSQL's log comes on top.
BYTES, BYTES_WITHOUT_EVENTS, LOG_BYTES = 10_000, 3_000, 5 * 10**9
# The rows of a sale, and those of one paid order.
SALE_TABLES = ("sale_sales", "sale_skus", "sale_segments")
TABLES = (*SALE_TABLES, "order_orders", "pay_intents", "pay_charges", "pay_transfers", "pay_entries", "pay_events")
ID, DIGITS = re.compile(r"(?<=_)0[0-9a-z]{25}"), "0123456789abcdefghjkmnpqrstvwxyz"


class Sqlite:
    """The ledger in a file."""

    def __init__(self, path):
        self.db = sqlite3.connect(path)
        # Nothing of the copying is kept if it fails.
        self.db.execute("PRAGMA journal_mode = off")
        self.db.execute("PRAGMA synchronous = off")
        # The pages that rows are added to stay in memory; KiB.
        self.db.execute("PRAGMA cache_size = -524288")

    def rows(self, table):
        """The table's rows, each a value by column."""
        found = self.db.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row)) for row in found]

    def types(self, table):
        """What each value is converted to; SQLite converts by itself."""
        return {}

    def numbers(self, last, step):
        return f"(WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + {step} FROM n WHERE i + {step} < {last}) SELECT i FROM n)"

    def text(self, form, number):
        return f"printf('{form}', {number})"

    def run(self, statements):
        for statement in statements:
            self.db.execute(statement)
        self.db.commit()
        self.db.close()
        # Or the first purchases wait for the disk to take in the copies.
        os.sync()


class Postgres:
    """The ledger on a server, through psql."""

    # Wide enough for 10^7: lpad cuts what is longer.
    FORMS = {"%08x": "lpad(to_hex({}), 8, '0')", "%07d": "lpad(({})::text, 7, '0')"}

    def __init__(self, psql):
        self.psql = psql

    def rows(self, table):
        """The table's rows, each a value by column."""
        return [json.loads(line) for line in self.psql(f"SELECT row_to_json(t) FROM {table} t").splitlines()]

    def types(self, table):
        """What each value is converted to."""
        columns = "SELECT json_object_agg(column_name, udt_name) FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{}'"
        return json.loads(self.psql(columns.format(table)))

    def numbers(self, last, step):
        return f"generate_series(0, {last - 1}, {step}) n (i)"

    def text(self, form, number):
        return self.FORMS[form].format(number)

    def run(self, statements):
        for statement in [*statements, "VACUUM ANALYZE", "CHECKPOINT"]:
            self.psql(statement)
        os.sync()


def room(orders, chosen, folder):
    """Fails if the disk has no room for so many orders."""
    needed = orders * (BYTES_WITHOUT_EVENTS if chosen.no_events else BYTES) + (LOG_BYTES if chosen.ledger == "postgres" else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise peers.Failed(f"{orders:,} orders need {needed / 1e9:.0f} GB of disk under {folder}; {free / 1e9:.0f} GB are free")


def copied(column, value):
    """SQL of a copy's value: times a month back, each id with a time of then and the number of the copy."""
    if isinstance(value, bool) or value is None:
        return {None: "NULL", True: "TRUE", False: "FALSE"}[value]
    if not isinstance(value, str):
        return str(value - PAST_MS if column.endswith("_ms") and value > PAST_MS else value)

    def then(found):
        ms = sum(DIGITS.index(digit) << 5 * place for place, digit in enumerate(found[0][9::-1])) - PAST_MS
        return "".join(DIGITS[ms >> 5 * place & 31] for place in range(9, -1, -1)) + "\0number\0" + found[0][18:]

    parts = {"first": "past-\0sale\0", "buyer-0": "buyer-\0number\0"}.get(value, ID.sub(then, value)).split("\0")
    return " || ".join(part if place % 2 else "'" + part.replace("'", "''") + "'" for place, part in enumerate(parts))


def copies(ledger, orders, chosen):
    """The statements that copy the one sale, order and payment."""
    orders_a_sale = chosen.orders_a_sale
    audited = int(time.time() * 1000) - PAST_MS + 7_200_000
    changed = {"audited_at_ms": audited} | {name: orders_a_sale for name in ("stock", "total", "sold")}
    for table in TABLES[:-1] if chosen.no_events else TABLES:
        step = orders_a_sale if table in SALE_TABLES else 1
        number, sale = ledger.text("%08x", "i"), ledger.text("%07d", f"i / {orders_a_sale} * {orders_a_sale}")
        numbered = f"(SELECT {number} AS number, {sale} AS sale FROM {ledger.numbers(orders, step)}) AS copies"
        types = ledger.types(table)
        for row in ledger.rows(table):
            values = {name: str(changed[name]) if name in changed else copied(name, value) for name, value in row.items()}
            typed = (f"CAST({value} AS {types[name]})" if name in types else value for name, value in values.items())
            yield f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(typed)} FROM {numbered}"
    yield f"UPDATE pay_balances SET available_minor = available_minor * {orders + 1}"


def grow(ledger, orders, chosen):
    """Puts so many finished orders and payments behind the one of the ledger."""
    # All statements are made before the first one changes what they are made from.
    ledger.run(list(copies(ledger, orders, chosen)))
