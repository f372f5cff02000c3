"""The budget fails what costs more than its slack, and says what grew; idle work and outliers are no part of a figure."""

import pathlib
import tempfile
import unittest

import callgrind
import instruction_budget
import instructions


def measured(instructions=1000.0, **other):
    one = {"instructions": instructions, "allocations": 10.0, "system_calls": 6.0, "clock_reads": 14.0, "behind": 0.0}
    return {"h1": one | {"functions": {"memcpy": 400.0, "parse": 300.0}, "spread": {"instructions": 0.001}, "calls": {}, "copies": {}} | other}


def budget(**other):
    kept = instruction_budget.of_case(measured()["h1"]) | other
    return {"build": {"rustc": "1"}, "cases": {"h1": kept}}


def compare(kept, now, slack=0.03):
    return instruction_budget.compare(kept, now, lambda case, metric: slack)


class Compare(unittest.TestCase):
    def test_within_the_slack_nothing_is_said(self):
        for instructions_now in (975, 1000, 1025):
            self.assertEqual(compare(budget(), measured(instructions_now)), ([], []))

    def test_what_costs_more_is_over_with_the_functions_that_grew(self):
        over, under = compare(budget(), measured(1100, functions={"memcpy": 390.0, "parse": 310.0, "encode": 420.0}))
        self.assertEqual(under, [])
        self.assertEqual(over[0], "h1: instructions 1,000 → 1,100 (+10.0%, slack 3%)")
        # Of what the file does not keep it is only known that it cost no more than the lightest kept, 300.
        self.assertEqual([line.split() for line in over[1:]], [["+120", "encode"], ["+10", "parse"]])

    def test_every_metric_is_held(self):
        for metric in instruction_budget.METRICS:
            over, _ = compare(budget(), measured(**{metric: measured()["h1"][metric] * 1.04}))
            self.assertIn(metric, over[0])
            over, _ = compare(budget(), measured(**{metric: measured()["h1"][metric] * 1.02}))
            self.assertEqual(over, [])

    def test_what_costs_less_asks_for_a_tighter_budget_and_fails_nothing(self):
        over, under = compare(budget(), measured(960))
        self.assertEqual((over, len(under)), ([], 1))

    def test_a_noisy_case_has_more_slack(self):
        self.assertEqual(compare(budget(), measured(1040), slack=0.05), ([], []))

    def test_a_case_without_a_budget_is_over(self):
        over, _ = compare({"build": {}, "cases": {}}, measured())
        self.assertEqual(over, ["h1: has no budget; --write-budget gives it one"])

    def test_something_where_there_was_nothing_is_over(self):
        self.assertEqual(len(compare(budget(allocations=0), measured())[0]), 1)
        self.assertEqual(compare(budget(allocations=0), measured(allocations=0.0)), ([], []))


class File(unittest.TestCase):
    def test_cases_that_were_not_measured_keep_their_budget(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "budget.json"
            self.assertEqual(instruction_budget.read(path), {"build": {}, "cases": {}})
            instruction_budget.write({"rustc": "2"}, {"h2": measured(2000.4)["h1"]}, budget(), path)
            kept = instruction_budget.read(path)
        self.assertEqual(kept["build"], {"rustc": "2"})
        self.assertEqual({name: case["instructions"] for name, case in kept["cases"].items()}, {"h1": 1000, "h2": 2000})

    def test_the_committed_budget_holds_every_case(self):
        kept = instruction_budget.read()
        self.assertEqual(set(kept["cases"]), set(instructions.instruction_cases.CASES))
        for name, case in kept["cases"].items():
            self.assertLessEqual(instruction_budget.METRICS.keys(), case.keys(), name)
            self.assertGreater(case["instructions"], 1000, name)


def counts(instructions, **calls):
    return callgrind.Counts(instructions, 0, 0, callgrind.collections.Counter(calls), callgrind.collections.Counter(f=instructions))


class Samples(unittest.TestCase):
    def test_only_threads_of_the_path_count_and_idle_work_is_taken_off(self):
        # Two seconds for ten requests; the idle program does 100 instructions and 5 calls a second on the thread.
        idle = {"edge": counts(100 * instructions.IDLE_SECONDS, epoll_wait=5 * instructions.IDLE_SECONDS), "control": counts(0)}
        threads = {"edge": counts(10_200, epoll_wait=30, writev=10), "control": counts(5_000)}
        one = instructions.per_request(threads, ("edge",), 10, idle, 2)
        self.assertEqual((one["instructions"], one["behind"]), (1000, 500))
        self.assertEqual(one["calls"], {"epoll_wait": 2, "writev": 1})
        self.assertEqual((one["system_calls"], one["functions"]), (3, {"f": 1000}))

    def test_an_outlier_does_not_move_the_figure(self):
        samples = [measured(figure)["h1"] for figure in (1000, 5000, 1010)]
        one = instructions.median_of(samples)
        self.assertEqual(one["instructions"], 1010)
        self.assertAlmostEqual(one["spread"]["instructions"], 4000 / 1010)


if __name__ == "__main__":
    unittest.main()
