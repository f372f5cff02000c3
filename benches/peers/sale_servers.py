"""The servers behind the sale's figures, each private and on free ports: Redis, PostgreSQL, and the gateway on a store."""

import http.client
import json
import os
import pathlib
import shutil
import subprocess
import time

import peers

# What is measured at the front has core 0; what stands behind it or loads it (Redis, PostgreSQL, wrk) core 1.
FRONT_CORE = peers.PROXY_CORE
BACK_CORE = peers.LOAD_CORE
BOTH_CORES = f"{FRONT_CORE},{BACK_CORE}"

TOOLS = {
    "redis-server": "Debian package redis-server",
    "redis-cli": "Debian package redis-tools",
    "redis-benchmark": "Debian package redis-tools",
}
# A gateway that has not settled what it accepted by then will not.
SETTLE_SECONDS = 120
# The longest statement of a bench copies millions of rows.
QUERY_SECONDS = 3_600


def missing():
    """One line for each program that is not there, with how to get it."""
    lines = [f"{binary}: {how}" for binary, how in TOOLS.items() if not peers.find(binary)]
    if not postgres_folder():
        lines.append("postgres and initdb: Debian package postgresql")
    return lines


def postgres_folder():
    """The programs of the newest PostgreSQL; Debian keeps them out of the path."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    return pathlib.Path(beside).resolve().parent if beside else None


def cpu_seconds(pid):
    """User and system time of a process, its ended children included."""
    # The name in parentheses may hold spaces; fields count from behind it: utime, stime, cutime, cstime are the 14th to 17th.
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in stat[11:15]) / os.sysconf("SC_CLK_TCK")


class Redis:
    """One server in memory; with `cluster` one node that has no slots yet."""

    def __init__(self, name, processes, folder, core=BACK_CORE, cluster=False):
        self.port, bus = peers.free_ports(2)
        folder = folder / name
        folder.mkdir()
        command = [peers.find("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if cluster:
            command += ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
        self.bus = bus
        self.process = processes.start(name, command, core, folder)
        peers.wait_for_port(name, self.process, self.port)

    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)

    def cli(self, *words):
        return peers.output_of([peers.find("redis-cli"), "-p", str(self.port), *map(str, words)]).strip()

    def load_script(self, path):
        """The script's hash."""
        return self.cli("script", "load", pathlib.Path(path).read_text())


class Postgres:
    """A server with its defaults but for room: checkpoints fall between measurements, not into them. Takes the database that the folder has."""

    def __init__(self, processes, folder):
        programs = postgres_folder()
        self.port = peers.free_ports(1)[0]
        data = folder / "postgres"
        is_new = not data.exists()
        data.mkdir(exist_ok=True)
        run_as = []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root; then folder and server belong to its own user, who must be let through.
            folder.chmod(0o711)
            shutil.chown(data, "postgres", "postgres")
            run_as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if is_new:
            initdb = [str(programs / "initdb"), "-D", str(data / "db"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
            peers.output_of([*run_as, *initdb])
        settings = ["fsync=on", "listen_addresses=127.0.0.1", "shared_buffers=256MB", "max_wal_size=4GB", "checkpoint_timeout=1h"]
        # Eight nodes want more than the hundred of the default.
        settings += ["max_connections=400"]
        command = [*run_as, str(programs / "postgres"), "-D", str(data / "db"), "-p", str(self.port), "-k", str(data)]
        self.process = processes.start("postgres", command + [word for one in settings for word in ("-c", one)], BACK_CORE, folder)
        peers.wait_for_port("postgres", self.process, self.port)

    def url(self):
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def query(self, statement):
        """What psql prints for it, without header and alignment."""
        return peers.output_of([str(postgres_folder() / "psql"), self.url(), "-tAc", statement], QUERY_SECONDS).strip()

    def wait(self):
        """Until it answers: it listens before it has recovered."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.query("SELECT 1")
                return
            except peers.Failed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        self.process.wait(peers.STOP_SECONDS)

    def cpu_seconds(self):
        """The postmaster, what has ended under it, and what lives under it."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        total = cpu_seconds(self.process.pid)
        for child in children:
            try:
                total += cpu_seconds(child)
            except FileNotFoundError:
                # It ended in between; its time is the postmaster's at the next reading.
                pass
        return total


class Gateway:
    """Penstock with one data-plane worker, selling from a store."""

    def __init__(self, name, store, processes, folder, role="all", durability="fast", core=FRONT_CORE):
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.plain, self.admin, origin = peers.free_ports(3)
        values = {"PLAIN": self.plain, "ADMIN": self.admin, "ORIGIN_A": origin, "DIR": self.folder}
        values |= {"STORE": store.replace("@DIR@", str(self.folder)), "DURABILITY": durability}
        config = self.folder / "penstock.toml"
        config.write_text(peers.fill((peers.CONFIGS / "sale.toml.tmpl").read_text(), values))
        command = [str(peers.PENSTOCK), "serve", "--config", str(config), "--role", role]
        self.process = processes.start(name, command, core, self.folder)
        for port in (self.plain, self.admin):
            peers.wait_for_port(name, self.process, port)

    def url(self):
        return f"http://localhost:{self.plain}/"

    def cpu_seconds(self):
        return peers.Running(self.name, self.process, self.plain, self.plain).cpu_seconds()

    def create_sale(self, name, stock):
        now = int(time.time() * 1000)
        sale = {
            "id": name, "starts_at_ms": now - 1000, "ends_at_ms": now + 3_600_000, "pay_within": "1h", "buyer_limit": 1,
            "currency": "usd", "skus": [{"sku": "shoe", "stock": stock, "price_minor": 100}],
        }
        self.ask("POST", "/admin/v1/sales", 201, json.dumps(sale))

    def wait_until_settled(self, sale):
        """Returns when nothing that the sale accepted waits for the ledger."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            if self.ask("GET", f"/admin/v1/sales/{sale}/report", 200)["queue_depth"] == 0:
                return
            time.sleep(0.05)
        raise peers.Failed(f"{self.name}: sale {sale} is not settled after {SETTLE_SECONDS} s")

    def ask(self, method, path, expected, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise peers.Failed(f"{self.name} {method} {path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status != expected:
            raise peers.Failed(f"{self.name} {method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def stop(self):
        """Ends it with its drain; what its store holds on disk stays until the run ends."""
        self.process.terminate()
        try:
            self.process.wait(peers.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
