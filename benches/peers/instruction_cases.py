"""What the instruction counts are taken of: each case starts the program with its configuration and knows how to ask it."""

import itertools
import json
import sqlite3
import time
import urllib.parse

import instruction_budget
import instruction_client
import peers
import sale_servers

# What the ledger has not got by then it will not get.
SETTLE_SECONDS = 60
JSON, FORM = {"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}


class Program(sale_servers.Gateway):
    """The program with one worker, under whatever stands before it."""

    def __init__(self, setting, name, template, values, role, before, environment):
        # The base class's own start is replaced: it takes neither another program nor what stands before it.
        self.name, self.folder = name, setting.folder / name
        self.folder.mkdir()
        self.plain, self.tls, self.admin = peers.free_ports(3)
        ports = {"PLAIN": self.plain, "HTTP": self.plain, "TLS": self.tls, "ADMIN": self.admin, "WORKERS": 1}
        text = (peers.CONFIGS / f"{template}.tmpl").read_text()
        # A template's @DIR@ is where its data lie.
        filled = peers.fill(text, ports | values | setting.values | {"DIR": self.folder})
        (self.folder / "penstock.toml").write_text(filled)
        command = [*before, "serve", "--config", "penstock.toml", "--role", role]
        self.process = setting.processes.start(name, command, setting.cores, self.folder, environment)
        for port in (self.plain, self.admin):
            peers.wait_for_port(name, self.process, port)


class Case:
    """Its `ask` sends a number of requests and returns when all that they cause is done."""

    TEMPLATE, VALUES, ROLE = "penstock.toml", {}, "all"
    # The threads that a request runs on; what others do meanwhile is shown apart.
    PATH = ("edge",)
    # Requests before the first sample: buffers have their size, connections to the origin are open.
    WARM_UP = 300
    # Requests of one sample, and how many samples: of an odd number the median is one of them.
    REQUESTS, SAMPLES = 500, 3
    # By how much more than its budget a figure may be, as a part of it: what threads ask of the kernel, and the rest.
    SLACK_CALLS, SLACK = instruction_budget.SLACK, instruction_budget.SLACK
    # How often the idle program is looked at.
    RESTS = 1

    def __init__(self, setting, name, before, environment, planned):
        self.setting, self.planned = setting, planned
        self.program = Program(setting, name, self.TEMPLATE, self.values(), self.ROLE, before, environment)
        self.begin()

    def values(self):
        return self.VALUES

    def begin(self):
        """What is needed before the first request."""

    def ask(self, count):
        raise NotImplementedError


class Proxy(Case):
    """GET through route, ring, limit per address and breaker, with metrics: the configuration of `make peers`."""

    OVER_TLS = False

    def begin(self):
        self.users = instruction_client.users()
        self.client = instruction_client.Http1(self.program.tls if self.OVER_TLS else self.program.plain, self.OVER_TLS)

    def ask(self, count):
        for user in itertools.islice(self.users, count):
            self.client.ask("GET", "/", {"x-user-id": user}, "", 200)


class ProxyTls(Proxy):
    OVER_TLS = True


class ProxyHttp2(Case):
    STREAMS = 4
    # How many answers of the origin come together: a spread of 5 % was seen.
    SLACK_CALLS = 0.1

    def begin(self):
        self.users = instruction_client.users()
        self.client = instruction_client.Http2(self.program.tls, self.STREAMS)

    def ask(self, count):
        for _ in range(count // self.STREAMS):
            self.client.ask(itertools.islice(self.users, self.STREAMS))


class Sale(Case):
    TEMPLATE, VALUES = "sale.toml", {"STORE": "embedded:journal", "DURABILITY": "durable"}
    STOCK, EXPECTED = 1_000_000, 201

    def begin(self):
        self.bought = itertools.count(1)
        self.settled = 0
        self.program.create_sale("sale", self.STOCK)
        self.client = instruction_client.Http1(self.program.plain)

    def buy(self, count):
        """The answers."""
        answers = []
        for number in itertools.islice(self.bought, count):
            headers = JSON | {"x-buyer-id": f"buyer-{number}", "idempotency-key": f"key-{number}"}
            answers.append(self.client.ask("POST", "/v1/sales/sale/orders", headers, '{"sku":"shoe","quantity":1}', self.EXPECTED))
        return answers

    def in_ledger(self, condition, count):
        """Waits until so many orders are. Read past the program: asking it would be counted."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            with sqlite3.connect(f"file:{self.ledger()}?mode=ro", uri=True) as ledger:
                found = ledger.execute(f"SELECT count(*) FROM order_orders WHERE {condition}").fetchone()[0]
            ledger.close()
            if found == count:
                return
            if time.monotonic() > deadline:
                raise peers.Failed(f"{found} orders are {condition}, not {count}")
            time.sleep(0.02)

    def ledger(self):
        return self.program.folder / "ledger.db"


class SoldOut(Sale):
    STOCK, EXPECTED = 0, 409

    def ask(self, count):
        self.buy(count)


class Purchase(Sale):
    """A durable purchase. How many orders settlement takes together depends on the machine's speed, so it is no part of the figure."""

    PATH = ("edge", "sequencer")
    REQUESTS = 200
    # Two threads wake each other, and how often depends on who is first: spreads of 2 and 7 % were seen.
    SLACK, SLACK_CALLS = 0.05, 0.15

    def ask(self, count):
        self.buy(count)
        self.settled += count
        self.in_ledger("true", self.settled)


class PurchaseRedis(Sale):
    """A node that only sells: nothing else runs on the threads of its connection to Redis."""

    PATH, ROLE = ("edge", "control"), "edge"
    REQUESTS = 200
    # As above: 3 and 6 %.
    SLACK, SLACK_CALLS = 0.06, 0.15

    def values(self):
        return {"STORE": self.setting.redis().url(), "DURABILITY": "fast"}

    def ask(self, count):
        self.buy(count)


class Payment(Sale):
    """A payment that is created and confirmed by one request, until its order is paid. The orders are bought before the first."""

    TEMPLATE = "growth.toml"
    VALUES = {"STORE": "embedded:journal", "DURABILITY": "durable", "LEDGER": "sqlite:ledger.db"}
    PATH = ("edge", "control", "sqlx-sqlite-wor", "sequencer")
    WARM_UP, REQUESTS, SAMPLES, RESTS = 40, 40, 5, 3
    # Some samples meet a reconciliation, which reads all payments every ten seconds; spreads of 5 and 8 % were seen.
    SLACK, SLACK_CALLS = 0.1, 0.15

    def begin(self):
        super().begin()
        self.orders = [json.loads(answer)["id"] for answer in self.buy(self.planned)]
        self.in_ledger("true", self.planned)
        self.key, self.paid = (self.program.folder / "payment.key").read_text().strip(), 0

    def ask(self, count):
        for order in itertools.islice(self.orders, self.paid, self.paid + count):
            form = {"amount": 100, "currency": "usd", "metadata[order]": order, "payment_method": "pm_card_visa", "confirm": "true"}
            headers = FORM | {"authorization": f"Bearer {self.key}", "idempotency-key": f"pay-{order}"}
            self.client.ask("POST", "/v1/payment_intents", headers, urllib.parse.urlencode(form), 200)
        self.paid += count
        self.in_ledger("status = 'paid'", self.paid)


CASES = {
    "h1": Proxy,
    "h1-tls": ProxyTls,
    "h2-tls": ProxyHttp2,
    "sold-out": SoldOut,
    "purchase": Purchase,
    "purchase-redis": PurchaseRedis,
    "payment": Payment,
}


def slack(case, metric):
    kind = CASES[case]
    return kind.SLACK_CALLS if metric in ("system_calls", "clock_reads") else kind.SLACK
