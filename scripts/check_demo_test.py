"""Tests of check-demo.py: a good verdict passes, each broken number is found."""

import importlib.util
import pathlib
import unittest

spec = importlib.util.spec_from_file_location("check_demo", pathlib.Path(__file__).with_name("check-demo.py"))
check_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_demo)

GOOD = {"stock": 1000, "accepted": 1100, "settled": 1100, "paid": 700, "returned": 150, "oversold": 0, "duplicated": 0, "lost": 0,
        "buyers": 20000, "requests": 22000, "p50_ms": 1.5, "p99_ms": 20.0, "wall_s": 30.0}


class Verdict(unittest.TestCase):
    def test_a_good_verdict_passes(self):
        self.assertEqual(check_demo.findings(GOOD), [])

    def test_each_broken_number_is_found(self):
        for key, value in {"oversold": 1, "duplicated": 1, "lost": 1, "accepted": 999, "settled": 1099, "paid": 0, "returned": 0,
                           "buyers": 19999, "requests": 20000, "p50_ms": 30.0, "wall_s": 0, "stock": None}.items():
            with self.subTest(key):
                self.assertTrue(check_demo.findings({**GOOD, key: value}))


if __name__ == "__main__":
    unittest.main()
