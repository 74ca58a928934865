"""`vptkit run --save` killed again and again: the file must be that of an undisturbed run.

    python -m tests.benchmarks.run_kills BUNDLE FOLDER --kills 200

By hand. Each try is killed with SIGKILL after a random time, and the same command is given again, as
often as it takes; then the output is compared and taken away.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Kill, go on, compare; an AssertionError if a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("folder")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    kills, runs, begun = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "x.csv"
        command = [sys.executable, "-m", "vptkit", "run", asked.bundle, asked.folder]
        command += ["--backend", "cpu", "--save", str(output)]
        first = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        took, whole = time.monotonic() - first, output.read_bytes()
        output.unlink()
        while kills < asked.kills and time.monotonic() - begun < asked.seconds:
            killed = _killed(command, random.uniform(0.3, 1.1) * took)
            kills += killed
            if output.exists():
                assert output.read_bytes() == whole
                left = [path.name for path in Path(place).iterdir()]
                assert killed or left == [output.name]
                if left == [output.name]:  # perhaps killed behind its last step
                    output.unlink()
                    runs += 1
        print(f"{kills} kills, {runs} whole runs of {len(whole)} bytes, one in {took:.1f} s")


def _killed(command: list[str], after: float) -> bool:
    """Whether the command did not end by itself."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, err = child.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return True
    assert child.returncode == 0, err.decode()
    return False


if __name__ == "__main__":
    main()
