"""What callgrind and valgrind write is counted once, by function and by thread."""

import pathlib
import tempfile
import unittest
from unittest import mock

import callgrind

DUMP = """\
# callgrind format
version: 1
thread: 11
events: Ir
summary: 170

fl=/src/core.rs
fn=gateway::serve::h0123456789abcdef
0 30
cfi=/src/alloc.rs
cfn=__rust_alloc
calls=3 0
0 90
0 20
cob=/lib/libc.so.6
cfn=__memcpy_avx_unaligned_erms
calls=2 0
0 8200

fn=__rust_alloc
0 15
cfn=malloc
calls=3 0
0 75

ob=/lib/libc.so.6
fn=malloc
0 45
cfn=_int_malloc
calls=3 0
0 30

fn=realloc
+3 5
cfn=malloc
calls=2 0
* 9

fn=_int_malloc
* 30

fn=gateway::serve::h0123456789abcdef
0 10
"""

CALLS = """\
==7== Callgrind, a call-graph generating cache profiler
SYSCALL[7,11](232) sys_epoll_wait ( 5, 0x4a0, 1024, 100 ) --> [async] ...
SYSCALL[7,2](202) sys_futex ( 0x4a0, 128, 1, 0x0, 0x0 ) --> [async] ...
SYSCALL[7,11](232) ... [async] --> Success(0x1)
SYSCALL[7,11]( 20) sys_writev ( 9, 0x1ff, 2 ) --> [async] ...
SYSCALL[7,11](228) sys_clock_gettime( 1, 0x1ff )[sync] --> Success(0x0)
SYSCALL[7,11]( 15) sys_rt_sigreturn ( )[sync] --> Failure(0x4)
SYSCALL[7,11](232) sys_epoll_wait ( 5, 0x4a0, 1024, 100 ) --> [async] ...
"""


class Dump(unittest.TestCase):
    def setUp(self):
        self.thread, self.counts = callgrind.read_dump(DUMP.splitlines())

    def test_a_function_has_its_own_instructions_and_not_those_it_calls(self):
        expected = {"gateway::serve": 60, "__rust_alloc": 15, "malloc": 45, "realloc": 5, "_int_malloc": 30}
        self.assertEqual(self.counts.functions, expected)
        self.assertEqual(self.counts.instructions, sum(expected.values()))

    def test_what_an_allocator_asks_of_itself_is_no_allocation(self):
        self.assertEqual(self.counts.allocations, 3)

    def test_a_copy_is_counted_for_whom_it_is_made(self):
        self.assertEqual(self.counts.copies, {"gateway::serve": 8200})
        for name in ("memcpy", "memmove@@GLIBC_2.2.5", "__memmove_avx_unaligned_erms", "__memcpy_avx_unaligned"):
            self.assertTrue(callgrind.COPIERS.match(name), name)
        self.assertFalse(callgrind.COPIERS.match("__memcmp_avx2_movbe"))

    def test_the_thread_is_told(self):
        self.assertEqual(self.thread, 11)

    def test_allocators_are_known_by_name(self):
        for name in ("malloc", "calloc", "posix_memalign", "mi_malloc_aligned", "_rjem_mallocx"):
            self.assertTrue(callgrind.ALLOCATORS.match(name), name)
        for name in ("_int_malloc", "malloc_consolidate", "alloc::alloc::alloc", "free"):
            self.assertFalse(callgrind.ALLOCATORS.match(name), name)

    def test_counts_of_threads_are_added_up(self):
        both = self.counts + self.counts
        self.assertEqual((both.instructions, both.allocations, both.functions["malloc"]), (310, 6, 90))


class Threads(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.task = self.folder / "123"
        process = mock.Mock(pid=1, poll=lambda: None)
        self.marks = callgrind.Marks(mock.Mock(folder=self.folder), "h1", process)

    def dump(self, on_signal):
        with mock.patch.object(callgrind, "LIBC", mock.Mock(syscall=on_signal)):
            return self.marks.dump(self.task)

    def begin(self):
        self.task.mkdir()
        (self.task / "comm").write_text("edge-0\n")

    def end(self, *_):
        (self.task / "comm").unlink()
        self.task.rmdir()

    def test_a_thread_that_ended_before_its_mark_is_left_out(self):
        self.assertIsNone(self.dump(lambda *_: -1))

    def test_a_thread_that_ends_before_it_has_dumped_is_left_out(self):
        self.begin()
        self.assertIsNone(self.dump(self.end))

    def test_a_thread_has_its_name_without_its_number(self):
        self.begin()
        written = self.folder / "h1.out.3-11"
        name, number, counts = self.dump(lambda *_: written.write_text(DUMP + "\ntotals: 185\n"))
        self.assertEqual((name, number, counts.allocations), ("edge", 11, 3))
        self.assertFalse(written.exists())


class SystemCalls(unittest.TestCase):
    def test_each_call_counts_once_for_its_thread(self):
        calls = callgrind.read_system_calls(CALLS)
        self.assertEqual(calls[11], {"epoll_wait": 2, "writev": 1, "clock_gettime": 1})
        self.assertEqual(calls[2], {"futex": 1})


if __name__ == "__main__":
    unittest.main()
