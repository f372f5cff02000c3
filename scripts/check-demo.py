#!/usr/bin/env python3
"""Checks the verdict that `penstock demo --json FILE` wrote: scripts/check-demo.py FILE

The demo's own exit code says the same; this reads the numbers instead of trusting it.
"""

import json
import pathlib
import sys

KEYS = "stock accepted settled paid returned oversold duplicated lost buyers requests p50_ms p99_ms wall_s".split()


def findings(v):
    """What is wrong with the verdict, as sentences."""
    absent = [key for key in KEYS if not isinstance(v.get(key), (int, float)) or isinstance(v.get(key), bool)]
    if absent:
        return [f"no number for {', '.join(absent)}"]
    rules = [
        (v["oversold"] == 0, "units were oversold"),
        (v["duplicated"] == 0, "a request id bought twice"),
        (v["lost"] == 0, "an acknowledged order is not in the ledger"),
        (v["stock"] > 0 and v["accepted"] >= v["stock"], "stock was left although the demand was many times larger"),
        (v["settled"] == v["accepted"], "not every accepted order reached the ledger"),
        (v["paid"] > 0 and v["returned"] > 0, "the demo must show both paid and returned orders"),
        (v["paid"] + v["returned"] <= v["accepted"], "more orders ended than were accepted"),
        (v["buyers"] >= 20_000, "the peak must have at least 20,000 buyers"),
        (v["requests"] > v["buyers"], "no buyer retried"),
        (0 < v["p50_ms"] <= v["p99_ms"], "the percentiles are not in order"),
        (v["wall_s"] > 0, "the wall time is not positive"),
    ]
    return [text for holds, text in rules if not holds]


def main():
    verdict = json.loads(pathlib.Path(sys.argv[1]).read_text())
    print(json.dumps({key: verdict.get(key) for key in KEYS}))
    wrong = findings(verdict)
    for text in wrong:
        print(f"the demo's verdict does not hold: {text}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
