"""docs/rehearsal.md against the reader of scenarios, and each scenario against the document of the sale it buys from."""

import pathlib
import re
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "rehearsal.md").read_text()


def keys_of_the_reader():
    """Full names of the keys that loadtest reads: a function for each table, a call for each key."""
    text = (ROOT / "loadtest" / "src" / "scenario" / "parse.rs").read_text()
    keys = set()
    for table, body in re.findall(r"^fn (\w+)\((?:s|root): Section.*?\{\n(.*?)^\}", text, re.M | re.S):
        prefix = "" if table == "read" else f"{table}."
        kinds = "whole|number|time|flag|text|texts|path|choice" + ("" if table == "read" else "|section")
        keys |= {prefix + key for key in re.findall(rf"\b(?:s|root)\s*\.(?:{kinds})\(\s*\"(\w+)\"", body)}
        keys |= {prefix + key for key in re.findall(r"\brequired_\w+\(&s, \"(\w+)\"\)", body)}
        keys |= {f"{prefix}{key}_{where}" for key in re.findall(r"\bs\.secret\(\"(\w+)\"", body) for where in ("file", "env")}
    return keys


class Rehearsal(unittest.TestCase):
    def test_every_key_of_a_scenario_is_on_the_page(self):
        table = PAGE.split("## Keys of a scenario")[1]
        listed = [key for row in re.findall(r"^\| (`.*?) \|", table, re.M) for key in re.findall(r"`([\w.]+)`", row)]
        self.assertEqual(len(listed), len(set(listed)))
        self.assertEqual(set(listed), keys_of_the_reader())
        self.assertGreater(len(listed), 50)

    def test_every_outcome_is_on_the_page(self):
        names = re.findall(r"Outcome::\w+ => \"(\w+)\"", (ROOT / "loadtest" / "src" / "outcome.rs").read_text())
        told = re.search(r"^Outcomes: (.*)\.$", PAGE, re.M).group(1)
        self.assertEqual(re.findall(r"`(\w+)`", told), names)

    def test_every_scenario_fits_its_sale(self):
        rows = re.findall(r"^\| \[(\S+\.toml)\]\(\S+\) \| (?:\[(\S+\.toml)\]\(\S+\)|none) \|", PAGE, re.M)
        folder = ROOT / "config" / "scenarios"
        self.assertEqual({name for name, _ in rows}, {file.name for file in folder.glob("*.toml")})
        for name, of_sale in rows:
            with self.subTest(name):
                scenario = tomllib.loads((folder / name).read_text())
                self.assertEqual("sale" in scenario, bool(of_sale))
                if not of_sale:
                    continue
                sale, bought = tomllib.loads((ROOT / "config" / "sales" / of_sale).read_text()), scenario["sale"]
                prices = {sku["sku"]: sku["price_minor"] for sku in sale["skus"]}
                self.assertEqual(bought["id"], sale["id"])
                self.assertLessEqual(set(bought["skus"]), set(prices))
                self.assertLessEqual(bought["quantity"], sale["buyer_limit"])
                if bought.get("cart_percent"):
                    self.assertTrue(sale["carts"])
                if "pay" in scenario:
                    self.assertEqual(scenario["pay"]["currency"], sale["currency"])
                    self.assertEqual({scenario["pay"]["amount_minor"]}, {bought["quantity"] * prices[sku] for sku in bought["skus"]})


if __name__ == "__main__":
    unittest.main()
