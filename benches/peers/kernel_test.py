"""What perf writes is counted once a stack and once an event."""

import unittest

import kernel

COUNTS = """\
# started on Sun Nov 29 20:01:30 2026

4040;;raw_syscalls:sys_enter;3018;100.00;;
1990;;syscalls:sys_enter_writev;3018;100.00;;
<not supported>;;sched:sched_waking;0;100.00;;
30;;context-switches;3018;100.00;;
"""

STACKS = """\
 ffffffff81 _raw_spin_unlock_irqrestore
 ffffffff82 sock_def_readable
 ffffffff83 tcp_v4_rcv
 ffffffff83 tcp_v4_rcv
 ffffffff84 tcp_sendmsg
 ffffffff85 entry_SYSCALL_64_after_hwframe
     7f0001 __writev

     7f0002 gateway::serve
     7f0003 [unknown]

 ffffffff86 asm_sysvec_apic_timer_interrupt
     7f0004 gateway::serve

 ffffffff86 asm_sysvec_apic_timer_interrupt
     7f0004 gateway::serve
"""


class Perf(unittest.TestCase):
    def test_events_that_were_counted_are_read_by_their_short_names(self):
        self.assertEqual(kernel.read_counts(COUNTS), {"sys_enter": 4040, "sys_enter_writev": 1990, "context-switches": 30})

    def test_a_stack_counts_once_for_each_function_and_for_where_it_is(self):
        expected = {"system": 1, "user": 3, "sock_def_readable": 1, "tcp_v4_rcv": 1, "tcp_sendmsg": 1}
        self.assertEqual(kernel.read_samples(STACKS), expected)

    def test_the_table_is_per_request_and_leaves_out_what_is_nothing(self):
        of = {"requests": 1000, "sys_enter": 4040, "sys_enter_writev": 1990, "system": 80}
        text = kernel.table({"penstock": kernel.collections.Counter(of)})
        self.assertIn("| system calls | 4.04 |", text)
        # 80 samples are 20 ms.
        self.assertIn("| µs in system calls | 20.00 |", text)
        self.assertNotIn("getsockopt", text)


if __name__ == "__main__":
    unittest.main()
