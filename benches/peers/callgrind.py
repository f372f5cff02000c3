"""A program under valgrind's callgrind: what it executes, allocates and asks of the kernel between two marks."""

import collections
import ctypes
import dataclasses
import os
import pathlib
import re
import time

import peers

# No program handles this real-time signal; callgrind_mark.c does.
MARK = 50
LIBC, TGKILL = ctypes.CDLL(None, use_errno=True), 234
# A dump takes a fraction of a second, on the slowest machine a few.
DUMP_SECONDS = 60
# The functions that hand out memory. What they call among themselves (`_int_malloc`) has other names.
ALLOCATORS = re.compile(r"(mi_|je_|_rjem_)?(malloc|calloc|realloc|memalign|posix_memalign|aligned_alloc|mallocx|rallocx)(_aligned)?$")
COPIERS = re.compile(r"_*mem(cpy|move)(_|@|$)")
# valgrind hides the vDSO, so reading a clock is a system call only here. It is counted apart.
CLOCK = "clock_gettime"
# What the marks themselves cause.
OURS = {"rt_sigreturn"}
SYSTEM_CALL = re.compile(r"^SYSCALL\[\d+,(\d+)\]\( *\d+\) +(?:sys_)?(\w+) *\(", re.MULTILINE)
# The hash that rustc puts behind a name changes with every build.
HASH = re.compile(r"::h[0-9a-f]{16}\b")


@dataclasses.dataclass
class Counts:
    """What some threads did between two marks."""

    instructions: int = 0
    allocations: int = 0
    clock_reads: int = 0
    system_calls: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    functions: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    # By the function that copies, the instructions of `memcpy` and `memmove`.
    copies: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def __add__(self, other):
        names = (field.name for field in dataclasses.fields(self))
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))


def read_dump(lines):
    """The counts of one dump that was written with --compress-strings=no, and the number that callgrind gave the thread."""
    counts, thread, function, callee, of_a_call = Counts(), 0, "", "", False
    for line in lines:
        if line.startswith("fn="):
            function = HASH.sub("", line[3:].strip())
        elif line.startswith("cfn="):
            callee = line[4:].strip()
        elif line.startswith("calls="):
            # The next line is the cost of the callee, which has lines of its own.
            of_a_call = True
            if ALLOCATORS.match(callee) and not ALLOCATORS.match(function):
                counts.allocations += int(line[6:].split()[0])
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not of_a_call:
                counts.functions[function] += int(line.split()[1])
            elif COPIERS.match(callee):
                counts.copies[function] += int(line.split()[1])
            of_a_call = False
        elif line.startswith("thread:"):
            thread = int(line[7:])
    counts.instructions = counts.functions.total()
    return thread, counts


def read_system_calls(text):
    """By thread, how often it called what, from what --trace-syscalls=yes wrote.

    What a call came to may stand on a line of its own, which has no name.
    """
    threads = collections.defaultdict(collections.Counter)
    for thread, name in SYSTEM_CALL.findall(text):
        if name not in OURS:
            threads[int(thread)][name] += 1
    return threads


class Callgrind:
    """Prepares a program, and reads what is counted when it runs."""

    def __init__(self, binary, folder, counts_bytes=False):
        """Reading the lines of a large program takes callgrind seconds; names of functions are enough."""
        self.folder, self.counts_bytes = folder, counts_bytes
        self.binary, self.mark_library = folder / "program", folder / "mark.so"
        peers.output_of(["strip", "--strip-debug", "-o", str(self.binary), str(binary)])
        source = str(peers.HERE / "callgrind_mark.c")
        peers.output_of(["cc", "-shared", "-fPIC", "-O2", f"-DMARK={MARK}", "-o", str(self.mark_library), source])

    def command(self, name):
        """What stands before the program's arguments."""
        return [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={self.folder / name}.out", f"--log-file={self.folder / name}.calls",
            "--trace-syscalls=yes", "--separate-threads=yes", "--compress-strings=no", "--compress-pos=no", "--dump-line=no", "--vgdb=no",
            # Threads take turns, instead of whoever is quickest.
            "--fair-sched=try", str(self.binary),
        ]  # fmt: skip

    def environment(self):
        preloaded = os.environ | {"LD_PRELOAD": str(self.mark_library)}
        # valgrind counts each byte that `rep movsb` copies as an instruction, so libc copies with vectors instead. Unless that is wanted.
        return preloaded if self.counts_bytes else preloaded | {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS,-FSRM"}


class Marks:
    """The marks of one running program."""

    def __init__(self, callgrind, name, process):
        self.process, self.read_to = process, 0
        self.folder, self.name = callgrind.folder, name

    def next(self):
        """By the name of threads, what those of that name did since the last mark. Threads that have ended are not counted."""
        threads = {}
        for task in sorted(pathlib.Path(f"/proc/{self.process.pid}/task").iterdir(), key=lambda task: int(task.name)):
            if dumped := self.dump(task):
                name, number, counts = dumped
                threads[number] = (name, counts)
        with (self.folder / f"{self.name}.calls").open(encoding="utf-8", errors="replace") as log:
            log.seek(self.read_to)
            calls = read_system_calls(log.read())
            self.read_to = log.tell()
        names = collections.defaultdict(Counts)
        for number, (name, counts) in threads.items():
            counts.clock_reads = calls[number].pop(CLOCK, 0)
            counts.system_calls = calls[number]
            names[name] += counts
        return names

    def dump(self, task):
        """A thread's name, its number for callgrind, and its counts; nothing if it has ended, which it may at any time."""
        try:
            # The number behind a name is that of a core or a worker.
            name = (task / "comm").read_text().strip().rstrip("-0123456789")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # Python's own call signals a whole process.
        LIBC.syscall(TGKILL, self.process.pid, int(task.name), MARK)
        deadline = time.monotonic() + DUMP_SECONDS
        while True:
            for path in self.folder.glob(f"{self.name}.out.*"):
                text = path.read_text(encoding="utf-8", errors="replace")
                if "\ntotals:" in text[-200:]:
                    path.unlink()
                    return name, *read_dump(text.splitlines())
            if self.process.poll() is None and not task.exists():
                return None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise peers.Failed(f"{self.name}: no counts after {DUMP_SECONDS} s, or it ended")
            time.sleep(0.005)
