#!/usr/bin/env python3
"""That check-docs.py finds what it is there for: files that the code map lacks, has twice or has made up."""

import importlib.util
import pathlib
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def load():
    spec = importlib.util.spec_from_file_location("check_docs", HERE / "check-docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load()

PAGE = """# Architecture

What runs is in `a/src/`.

#### `a/src/`

| file | what it does |
|---|---|
| `lib.rs` | the root |

#### `a/src/b/`

| file | what it does |
|---|---|
| `mod.rs` | the list |
| `deep/mod.rs` | what is below |
"""
FILES = ["a/src/lib.rs", "a/src/b/mod.rs", "a/src/b/deep/mod.rs"]


class CodeMap(unittest.TestCase):
    def found(self, page, files=FILES):
        return list(check.code_map(page, files))

    def test_a_page_with_a_row_for_each_file_has_no_finding(self):
        self.assertEqual(self.found(PAGE), [])

    def test_a_file_without_a_row_is_found(self):
        self.assertEqual(self.found(PAGE, [*FILES, "a/src/new.rs"]), ["a/src/new.rs has no row"])

    def test_a_row_without_a_file_is_found(self):
        self.assertEqual(self.found(PAGE, FILES[:2]), ["there is no production file a/src/b/deep/mod.rs"])

    def test_a_second_row_is_found(self):
        row = "| `mod.rs` | the list |\n"
        self.assertEqual(self.found(PAGE.replace(row, row * 2)), ["a/src/b/mod.rs has more than one row"])

    def test_a_file_that_is_named_beside_its_row_is_found(self):
        self.assertEqual(self.found(PAGE.replace("in `a/src/`", "in `a/src/lib.rs`")), ["line 3: a/src/lib.rs is named outside of its row"])
        self.assertEqual(self.found(PAGE.replace("the list", "see lib.rs")), ["line 15: lib.rs is named outside of its row"])

    def test_a_row_under_a_heading_without_a_folder_is_found(self):
        findings = self.found(PAGE.replace("#### `a/src/b/`", "#### b"))
        self.assertIn("a/src/b/mod.rs has no row", findings)
        self.assertIn("line 15: mod.rs is named outside of its row", findings)

    def test_tests_are_no_production_files(self):
        for name, expected in [("a/src/x.rs", True), ("a/src/tests.rs", False), ("a/src/x/tests.rs", False), ("a/tests/x.rs", False), ("a/src/tests/mod.rs", False)]:
            self.assertEqual(check.is_production(pathlib.Path(name)), expected, name)


class Shape(unittest.TestCase):
    def test_one_sentence_a_line_is_no_finding(self):
        page = "# Title. And more.\n\nOne `a. B` sentence, e.g. Penstock's: [a. B](x.md).\n- **Name. Of it.** What it is.\n\n```\nA. B.\n```\n"
        self.assertEqual(list(check.shape(page)), [])

    def test_two_sentences_on_a_line_are_found(self):
        for line in ["One. Two.", "One! `two` is code.", "- One (in brackets.) Two.", "Is it? **Yes** it is."]:
            self.assertEqual(list(check.shape(line)), ["line 1: more than one sentence"], line)

    def test_a_cell_that_is_too_long_is_found(self):
        rows = ["| a | " + "x" * 200 + " |", "| a | " + "x" * 201 + " |"]
        self.assertEqual(list(check.shape("\n".join(rows))), ["line 2: a cell of 201 characters, at most 200"])

    def test_every_page_has_this_shape(self):
        self.assertEqual(list(check.shapes()), [])


class Repository(unittest.TestCase):
    def test_every_production_file_has_one_row_on_the_page(self):
        self.assertEqual(list(check.architecture()), [])

    def test_every_path_of_the_walk_exists(self):
        self.assertEqual(list(check.walk()), [])


if __name__ == "__main__":
    unittest.main()
