"""How much memory a bundle takes, measured in a fresh process that opens it and runs it.

In a process of its own, because allocators keep what an earlier session gave back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from vptkit.errors import VptkitError

from .session import open_session
from .timing import random_images

__all__ = ["Memory", "measure_memory", "memory_of_this_process"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory in MiB.

    Attributes:
        peak: the most that the whole process ever held, Python and libraries included.
        increase: what opening and running the bundle added, the libraries left out.
    """

    peak: float
    increase: float

    def to_json(self) -> dict[str, float]:
        """As the profile writes it."""
        return {name: round(value, 1) for name, value in asdict(self).items()}


def measure_memory(bundle: Path, *, backend: str, batch: int, threads: int) -> Memory | None:
    """Open and run a bundle in a child process.

    Returns:
        Its memory, or None where the system has no /proc/self/status.

    Raises:
        VptkitError: the child failed, for example for lack of memory.
    """
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-m", __name__, str(bundle), backend, str(batch), str(threads)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- ourselves
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise VptkitError(
            f"{bundle}: the process that measures memory ended with {child.returncode}: {last[0]}"
        )
    return Memory(**json.loads(child.stdout))


def memory_of_this_process() -> tuple[float, float]:
    """(resident now, resident at most), in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    # Not getrusage: its peak is inherited from the parent, through exec.
    now, peak = (int(values[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return now, peak


def _measure_here(bundle: Path, backend: str, batch: int, threads: int) -> Memory:
    from . import ort  # noqa: F401 -- load the library first: its share is not the bundle's

    before, _ = memory_of_this_process()
    session = open_session(bundle, backend, threads)
    images = random_images(batch, session.bundle.preprocess.size)
    for _ in range(3):
        session.run(images, session.bundle.adapter_names[0])
    after, peak = memory_of_this_process()
    return Memory(peak=peak, increase=after - before)


if __name__ == "__main__":
    _bundle, _backend, _batch, _threads = sys.argv[1:]
    _memory = _measure_here(Path(_bundle), _backend, int(_batch), int(_threads))
    sys.stdout.write(json.dumps(asdict(_memory)))
