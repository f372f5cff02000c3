#!/usr/bin/env python3
"""Holds the modules of each crate to the direction of docs/architecture.md; prints every violation and exits 1 if there is one.

A crate of FLOORS is a list of its top-level modules, ground first: a module uses only those above it in the list, and every module is on
it. In the other crates no module may lead back to itself. Tests may use anything.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLOORS = {
    "gateway": """snapshot http meters tls config access_log connection upstream limit route exchange proxy handlers layers cores
        admin logging signals compose demo cli""".split(),
}
CRATES = ("gateway", "settings", "limiter", "stock", "delivery", "seckill", "payment", "loadtest")
# The crates in the order of Cargo.toml: each may use those before it.
ORDER = ("settings", "limiter", "stock", "delivery", "seckill", "payment", "loadtest", "gateway", "benches")
# Where a crate is, if not in the folder of its name.
FOLDERS = {"stock": "seckill/stock", "delivery": "seckill/delivery"}
APART = {("payment", "seckill"), ("seckill", "payment"), ("delivery", "stock")} | {
    (crate, part) for crate in ("payment", "gateway", "loadtest") for part in ("stock", "delivery")
}
# What a crate must not depend on, beside the crates of ours after it.
BANNED = {"stock": {"axum", "http", "http-body-util", "hyper", "hyper-util", "tower", "sqlx", "jsonwebtoken"}, "delivery": {"axum", "fred", "sqlx"}}


def code(path):
    """A file's text without its tests and comments."""
    text = path.read_text()
    text = re.split(r"^#\[cfg\(test\)\]\n(?:pub(?:\(crate\))? )?mod \w+ \{", text, flags=re.M)[0]
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


def first_names(text):
    """The modules named right behind `crate::`, those in braces included."""
    for match in re.finditer(r"\bcrate::(\{)?", text):
        rest = text[match.end() :]
        if not match.group(1):
            yield re.match(r"\w*", rest).group()
            continue
        depth, item = 1, ""
        for char in rest:
            depth += (char == "{") - (char == "}")
            if depth == 0 or (depth == 1 and char == ","):
                yield re.match(r"\w*", item.strip()).group()
                item = ""
                if depth == 0:
                    break
            else:
                item += char


def imports(source):
    """Module → modules that it uses, both at the top level of a crate."""
    uses = {}
    for path in sorted(source.rglob("*.rs")):
        parts = path.relative_to(source).with_suffix("").parts
        if parts[0] in ("lib", "main") or "tests" in parts or "testing" in parts:
            continue
        names = {name for name in first_names(code(path)) if name and name != parts[0]}
        uses.setdefault(parts[0], set()).update(name for name in names if name[0].islower())
    return {module: names & uses.keys() for module, names in uses.items()}


def circles(uses):
    """The sets of modules that lead back to each other."""
    reach = {}
    for module in uses:
        seen, stack = set(), [module]
        while stack:
            for name in uses[stack.pop()] - seen:
                seen.add(name)
                stack.append(name)
        reach[module] = seen
    found = {frozenset({module, *(other for other in reach[module] if module in reach[other])}) for module in uses if module in reach[module]}
    return sorted((set(circle) for circle in found), key=sorted)


def check_floors(crate, uses):
    floors = FLOORS[crate]
    for module in sorted(uses.keys() - set(floors)):
        yield f"{crate}/src/{module}: is on no floor; put it into FLOORS where it belongs"
    for module, names in sorted(uses.items()):
        for name in sorted(names):
            if module in floors and name in floors and floors.index(name) > floors.index(module):
                yield f"{crate}/src/{module}: uses {name}, which is above it"


def folder(crate):
    return ROOT / FOLDERS.get(crate, crate)


def check_crate(crate):
    uses = imports(folder(crate) / "src")
    if crate in FLOORS:
        yield from check_floors(crate, uses)
    for circle in circles(uses):
        yield f"{crate}/src: a circle of modules: {' ↔ '.join(sorted(circle))}"


def check_order():
    """A crate's dependencies are crates before it; those that must not know each other do not, and none is banned."""
    for crate in ORDER:
        manifest = (folder(crate) / "Cargo.toml").read_text()
        table = re.search(r"^\[dependencies\]\n(.*?)(?=^\[)", manifest + "\n[", re.M | re.S).group(1)
        for other in re.findall(r"^([\w-]+)", table, re.M):
            is_wrong = other in ORDER and (ORDER.index(other) >= ORDER.index(crate) or (crate, other) in APART)
            if is_wrong or other in BANNED.get(crate, ()):
                yield f"{crate}/Cargo.toml: depends on {other}"


def main():
    violations = [*check_order(), *(line for crate in CRATES for line in check_crate(crate))]
    for line in violations:
        print(line)
    print(f"imports checked, {len(violations)} violations")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())
