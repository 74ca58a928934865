"""How much memory a bundle takes, measured in a fresh process that opens it and runs it.

In a process of its own, because allocators keep what an earlier session gave back.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import TimeoutExpired

from vptkit.devices.drivers.cuda import open_device, probe
from vptkit.devices.probes.memory import process_memory
from vptkit.errors import VptkitError
from vptkit.python_child import python_command, run_python
from vptkit.runtime.backends.selection import OPENVINO, TRT_LIBRARIES, on_nvidia
from vptkit.runtime.backends.tensorrt_library import load
from vptkit.runtime.session.factory import open_session

from .timing import random_images

__all__ = ["Memory", "measure_memory"]

_MODULE = "vptkit.runtime.measure.memory_footprint"
# As long as a slow board needs to load CUDA, to read an engine and to run it three times.
_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory in MiB, resident in the process and on the GPU.

    Attributes:
        peak: the most that the whole process ever held, Python and libraries included.
        increase: what opening and running the bundle added, the libraries left out.
        device: what it added on the GPU, as free memory before and after tells (others who use the
            GPU meanwhile are in it); None without one. An integrated GPU's is the board's.
    """

    peak: float
    increase: float
    device: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """As the profile writes it."""
        return {
            name: None if value is None else round(value, 1) for name, value in asdict(self).items()
        }


def measure_memory(
    bundle: Path,
    *,
    backend: str,
    batch: int,
    threads: int,
    trust_engines: bool = False,
    seconds: float = _SECONDS,
) -> Memory | None:
    """Open and run a bundle in a child process.

    Args:
        bundle, backend, threads, trust_engines: as of `open_session`.
        batch: images of a run.
        seconds: the child may take so long.

    Returns:
        Its memory, or None where the system has no /proc/self/status.

    Raises:
        VptkitError: the child failed, for example for lack of memory, or took too long.
    """
    if not Path("/proc/self/status").exists():
        return None
    words = (str(bundle), backend, str(batch), str(threads), str(int(trust_engines)))
    try:
        child = run_python(python_command(_MODULE, *words), seconds=seconds, text=True)
    except TimeoutExpired as error:
        raise VptkitError(
            f"{bundle}: the process that measures memory did not end in {seconds:g} s and was "
            "killed. Pass --no-memory to measure without it."
        ) from error
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise VptkitError(
            f"{bundle}: the process that measures memory {_end(child.returncode)}: {last[0]}"
        )
    return Memory(**json.loads(child.stdout))


def _end(status: int) -> str:
    """How it ended."""
    if status == -signal.SIGKILL:
        return "was killed (signal 9), most likely for lack of memory"
    return f"crashed with signal {-status}" if status < 0 else f"ended with {status}"


def _measure_here(
    bundle: Path, backend: str, batch: int, threads: int, *, trust_engines: bool
) -> Memory:
    # The library first: its share is not the bundle's.
    if backend in TRT_LIBRARIES:
        load(TRT_LIBRARIES[backend])
    elif backend in OPENVINO:
        from vptkit.runtime.backends import openvino_graph  # noqa: F401 -- optional and slow to import
    else:
        from vptkit.runtime.backends import onnxruntime_graph  # noqa: F401 -- optional and slow to import

    free = _free_on_device(backend)
    before, _ = process_memory()
    session = open_session(bundle, backend, threads, trust_engines=trust_engines)
    images = random_images(batch, session.bundle.preprocess.size)
    for _ in range(3):
        session.answers(images, session.bundle.adapter_names[0])
    after, peak = process_memory()
    left = _free_on_device(backend)
    device = None if free is None or left is None else free - left
    return Memory(peak=peak, increase=after - before, device=device)


def _free_on_device(backend: str) -> float | None:
    """MiB of NVIDIA's GPU, or None on another device."""
    return None if not on_nvidia(backend) else open_device(probe()).memory()[0] / 2**20


if __name__ == "__main__":
    _bundle, _backend, _batch, _threads, _trust = sys.argv[1:]
    _memory = _measure_here(
        Path(_bundle), _backend, int(_batch), int(_threads), trust_engines=_trust == "1"
    )
    sys.stdout.write(json.dumps(asdict(_memory)))
