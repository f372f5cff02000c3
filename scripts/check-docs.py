#!/usr/bin/env python3
"""Holds the documents against the repository; prints every finding and exits 1 if there is one.

Every relative link of a Markdown file leads to a file, and to a heading of it where it names one. A line of Markdown holds one sentence,
and a cell of a table at most 200 characters. Every path and every test that docs/invariants.md names exists, and every invariant that the code names is on that page. Every production file of Rust is named once on
docs/architecture.md, in a row of its code map under the heading of its folder, and every file named there exists. So does every path
that docs/request-life.md names, and its number of files on the longest way of a GET is that of its table.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tracked(*patterns):
    """Files that git knows or would add."""
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def anchors(markdown):
    """What GitHub makes of the headings outside code blocks."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", prose, re.M)}


def links(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: the link {target} leads nowhere"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            yield f"{page.relative_to(ROOT)}: {path or 'the page'} has no heading #{anchor}"


# Pages whose lines are entries, or that a program writes.
NOT_PROSE = ("CHANGELOG.md", "benches/peers/report/")
MOST_OF_A_CELL = 200
# Behind the end of a sentence: the beginning of another.
ANOTHER = re.compile(r"""(?<=[.!?])["')*_]*\s+(?=["'(\[*_]*[A-Z\x00])""")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|vs|etc|cf|No)\.$")


def shape(text):
    """Findings where a line has two sentences, or a cell of a table is too long to read."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        if is_code or line.startswith("#"):
            continue
        if line.lstrip().startswith("|"):
            longest = max(len(cell.strip()) for cell in line.strip().strip("|").split(" | "))
            if longest > MOST_OF_A_CELL:
                yield f"line {number}: a cell of {longest} characters, at most {MOST_OF_A_CELL}"
            continue
        # Code, links and the bold name of an item are words, whatever stands in them.
        words = re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|\*\*[^*]*\*\*", "\0", re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", line))
        if any(not ABBREVIATION.search(words[: match.start()]) for match in ANOTHER.finditer(words)):
            yield f"line {number}: more than one sentence"


def shapes():
    for page in tracked("*.md"):
        name = page.relative_to(ROOT).as_posix()
        if not name.startswith(NOT_PROSE):
            yield from (f"{name}: {finding}" for finding in shape(page.read_text()))


def invariants():
    page = (ROOT / "docs" / "invariants.md").read_text()
    code = {file: file.read_text() for file in tracked("*.rs", "*.lua", "*.sql")}
    functions = set(re.findall(r"\bfn (\w+)", "".join(code.values())))
    sections = re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    for name, section in sections:
        kept, _, tests = section.partition("\nTests:\n")
        if not tests.strip():
            yield f"docs/invariants.md: {name}: names no test"
        for path in re.findall(r"`([\w./-]+/[\w./-]*)`", kept):
            if not (ROOT / path).exists():
                yield f"docs/invariants.md: {name}: there is no {path}"
        for test in re.findall(r"`(\w+)`", tests):
            if test not in functions:
                yield f"docs/invariants.md: {name}: there is no test {test}"
    listed = {name for name, _ in sections}
    for file, text in code.items():
        for name in sorted(set(re.findall(r"\bINV-[A-Z]+-\d+", text)) - listed):
            yield f"{file.relative_to(ROOT)}: {name} is not in docs/invariants.md"


def is_production(path):
    """Whether a path of a Rust file, relative to the repository, holds more than tests."""
    return "tests" not in path.parts and path.name != "tests.rs"


def code_map(page, files):
    """Findings where the code map of a page and the repository's production files differ."""
    named, folder = [], None
    for number, line in enumerate(page.splitlines(), 1):
        if heading := re.match(r"#+ (?:`([\w./-]+/)`)?", line):
            folder = heading.group(1)
        row = re.match(r"\| `([\w./-]+\.rs)` \|", line)
        if row and folder:
            named.append(folder + row.group(1))
            line = line[row.end() :]
        for name in re.findall(r"[\w./-]+\.rs\b", line):
            yield f"line {number}: {name} is named outside of its row"
    for name in sorted(set(named) - set(files)):
        yield f"there is no production file {name}"
    for name in sorted(set(files) - set(named)):
        yield f"{name} has no row"
    for name in sorted({name for name in named if named.count(name) > 1}):
        yield f"{name} has more than one row"


def architecture():
    files = [path.relative_to(ROOT) for path in tracked("*.rs")]
    page = (ROOT / "docs" / "architecture.md").read_text()
    for finding in code_map(page, [path.as_posix() for path in files if is_production(path)]):
        yield f"docs/architecture.md: {finding}"


def walk():
    """Paths on docs/request-life.md are those of the repository, or of gateway/src; a list may name its folder first: "in `folder/`: …"."""
    page = (ROOT / "docs" / "request-life.md").read_text()
    for number, line in enumerate(page.splitlines(), 1):
        folder = re.search(r"\bin `([\w./-]+/)`:", line)
        bases = [ROOT / folder.group(1)] if folder else [ROOT / "gateway" / "src"]
        for path in re.findall(r"`([\w./-]+(?:\.rs|\.lua|\w/))`", line):
            if not any((base / path).exists() for base in [ROOT, *bases]):
                yield f"docs/request-life.md: line {number}: there is no {path}"
    table = re.search(r"^## A GET.*?\*\*The longest way of a GET is (\d+) files", page, re.M | re.S)
    files = set(re.findall(r"`([\w./-]+\.rs)`", table.group()))
    if len(files) != int(table.group(1)):
        yield f"docs/request-life.md: the longest way of a GET has {len(files)} files, not {table.group(1)}"


def main():
    findings = [finding for page in tracked("*.md") for finding in links(page)] + [*shapes(), *invariants(), *architecture(), *walk()]
    for finding in findings:
        print(finding)
    print(f"documents checked, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
