"""The report says what was measured: ratios by round, bars, and what must be measured for a figure."""

import pathlib
import tempfile
import unittest

import sale_report

FACTS = {
    "machine": {"cpu": "c", "cores": 2, "kernel": "k", "system": "s"},
    "date": "d", "command": "sale.py", "settings": {"rounds": 3}, "load_average_before": 0.1, "versions": {"redis": "7"},
}


class SaleReport(unittest.TestCase):
    def summary(self, figure, ours, theirs):
        ratio = sale_report.FIGURES[figure][0]
        results = {ratio.ours: [{ratio.unit: one} for one in ours], ratio.theirs: [{ratio.unit: one} for one in theirs]}
        return sale_report.summary(ratio, results)

    def test_a_ratio_is_taken_within_each_round(self):
        # Medians divided would give 3 ÷ 2; the rounds' own ratios are 1, 3 and 2.
        one = self.summary("sold-out", [1, 3, 8], [1, 1, 4])
        self.assertEqual((one["median"], one["min"], one["max"]), (2, 1, 3))

    def test_a_bar_is_reached_at_its_value_and_not_beyond(self):
        self.assertEqual(self.summary("redis-cpu", [35], [100])["verdict"], "reached")
        self.assertEqual(self.summary("redis-cpu", [36], [100])["verdict"], "**not reached**")
        self.assertEqual(self.summary("redis-rate", [50], [100])["verdict"], "reached")
        self.assertEqual(self.summary("redis-rate", [49], [100])["verdict"], "**not reached**")

    def test_a_line_beside_a_bar_has_no_verdict(self):
        ratio = next(ratio for ratio in sale_report.FIGURES["redis-cpu"] if not ratio.bar())
        self.assertEqual(ratio.verdict(9), "")

    def test_every_figure_is_made_of_what_is_measured(self):
        self.assertEqual(sale_report.measurements(sale_report.FIGURES), set(sale_report.MEASUREMENTS))

    def test_the_report_shows_medians_spread_and_verdict(self):
        results = {"sold-out": [{"cpu_us": 30}, {"cpu_us": 10}, {"cpu_us": 20}], "nginx": [{"cpu_us": 5}] * 3}
        with tempfile.TemporaryDirectory() as folder:
            text = sale_report.write(pathlib.Path(folder), FACTS, ["sold-out"], results).read_text()
        self.assertIn("| 4.00 | 2.00–6.00 | ≤ 2 | **not reached** |", text)
        self.assertIn("| 20.0 | 10.0–30.0 |", text)


if __name__ == "__main__":
    unittest.main()
