"""`python -m tests.fuzz`: as many inputs as asked for; one JSON document, exit code 1 for a finding."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9, help="inputs")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", default="", help="one subject")
    asked = parser.parse_args()

    from .campaign import run_campaign
    from .subjects import make_seeds

    def say(line: object) -> None:
        sys.stderr.write(f"{json.dumps(line)}\n")

    with tempfile.TemporaryDirectory(prefix="vptkit-seeds-") as folder:
        make_seeds(Path(folder))
        begun = time.monotonic()
        report = run_campaign(Path(folder), **vars(asked), every=say)
    found = {**report.to_json(), "seconds": round(time.monotonic() - begun, 1)}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
