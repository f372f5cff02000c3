"""What tests need to run a real Penstock: the program, a process and its lines, where it serves."""

import contextlib
import json
import os
import pathlib
import queue
import re
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PENSTOCK = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "penstock"
PATIENCE_S = 60


class Program:
    """A process and the lines it writes."""

    def __init__(self, command, folder, environment):
        # Only what is named here: a key of the machine must not decide the outcome.
        environment = {"PATH": os.environ["PATH"], **environment}
        self.command, self.seen, self.lines = command, [], queue.Queue()
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def until(self, wanted):
        """The first true answer of `wanted` about a line; the test fails if the program ends or stays silent before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{self.command} ended or fell silent after:\n{''.join(self.seen)}")
            self.seen.append(line)
            if found := wanted(line):
                return found

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stdout.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def served(line):
    """Where it serves, if this log line says so: the listener and the admin address."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        fields = json.loads(line)["fields"]
        return re.findall(r"[\d.]+:\d+", fields["listeners"])[0], fields["admin"]
    return None
