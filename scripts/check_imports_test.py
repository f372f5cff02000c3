"""Each kind of violation that check-imports.py has to find, made on purpose."""

import importlib.util
import pathlib
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
SPEC = importlib.util.spec_from_file_location("check_imports", HERE / "check-imports.py")
checks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(checks)


class Imports(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source = pathlib.Path(folder.name)

    def crate(self, **files):
        for name, text in files.items():
            path = self.source / (name.replace("__", "/") + ".rs")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return checks.imports(self.source)

    def test_uses_are_found_in_every_form(self):
        uses = self.crate(a="use crate::{b::{self, X}, c};\nfn f() { crate::d::g() }", b="", c="", d="")
        self.assertEqual(uses["a"], {"b", "c", "d"})

    def test_comments_and_tests_may_use_anything(self):
        uses = self.crate(a="//! See crate::b.\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n", b="", c="")
        self.assertEqual(uses["a"], set())
        for how in ("pub ", "pub(crate) "):
            uses = self.crate(a=f"#[cfg(test)]\n{how}mod testing {{\n    use crate::c;\n}}\n")
            self.assertEqual(uses["a"], set(), how)

    def test_a_circle_is_found_however_long(self):
        uses = self.crate(a__mod="use crate::b;", b="use crate::c;", c__deep="use crate::a;", d="use crate::a;")
        self.assertEqual(checks.circles(uses), [{"a", "b", "c"}])

    def test_an_import_from_above_is_found(self):
        checks.FLOORS["toy"] = ["ground", "first", "top"]
        self.addCleanup(checks.FLOORS.pop, "toy")
        uses = self.crate(ground="use crate::top::Thing;", first="use crate::ground;", top="")
        self.assertEqual(list(checks.check_floors("toy", uses)), ["toy/src/ground: uses top, which is above it"])

    def test_a_module_on_no_floor_is_found(self):
        checks.FLOORS["toy"] = ["ground"]
        self.addCleanup(checks.FLOORS.pop, "toy")
        found = list(checks.check_floors("toy", self.crate(ground="", attic="")))
        self.assertEqual(len(found), 1)
        self.assertIn("attic", found[0])

    def test_the_crates_stand_in_their_order(self):
        self.assertEqual(list(checks.check_order()), [])
        order, checks.ORDER = checks.ORDER, tuple(reversed(checks.ORDER))
        self.addCleanup(setattr, checks, "ORDER", order)
        self.assertIn("gateway/Cargo.toml: depends on seckill", list(checks.check_order()))

    def test_a_banned_dependency_is_found(self):
        banned, checks.BANNED = checks.BANNED, {"stock": {"fred"}}
        self.addCleanup(setattr, checks, "BANNED", banned)
        self.assertEqual(list(checks.check_order()), ["stock/Cargo.toml: depends on fred"])


if __name__ == "__main__":
    unittest.main()
