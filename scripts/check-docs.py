#!/usr/bin/env python3
"""Holds the documents against the repository; prints every finding and exits 1 if there is one.

Every relative link of a Markdown file leads to a file, and to a heading of it where it names one. Every path and every test that
docs/invariants.md names exists, and every invariant that the code names is on that page.
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


def invariants():
    page = (ROOT / "docs" / "invariants.md").read_text()
    code = {file: file.read_text() for file in tracked("*.rs", "*.lua", "*.sql")}
    functions = set(re.findall(r"\bfn (\w+)", "".join(code.values())))
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| INV-")]
    for name, _, enforced, tests in rows:
        for path in re.findall(r"`([\w./-]+/[\w./-]*)`", enforced):
            if not (ROOT / path).exists():
                yield f"docs/invariants.md: {name}: there is no {path}"
        for test in re.findall(r"`(\w+)`", tests):
            if test not in functions:
                yield f"docs/invariants.md: {name}: there is no test {test}"
    listed = {row[0] for row in rows}
    for file, text in code.items():
        for name in sorted(set(re.findall(r"\bINV-[A-Z]+-\d+", text)) - listed):
            yield f"{file.relative_to(ROOT)}: {name} is not in docs/invariants.md"


def main():
    findings = [finding for page in tracked("*.md") for finding in links(page)] + list(invariants())
    for finding in findings:
        print(finding)
    print(f"documents checked, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
