"""How many images are answered at once, and with how many threads each batch of them.

A batch on several threads waits for the slowest at each operator, and on a machine whose cores also decode
one is always held up. Batches on a thread of their own do not wait for each other. Measured on two
cores: docs/benchmarks.md.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RunThreads", "run_threads"]

_MOST_RUNS = 4  # each takes the memory of a batch; with more cores a run gets more threads


class RunThreads(NamedTuple):
    """How the cores are parted where many images come.

    Attributes:
        threads: of one run on the processor.
        runs: batches that are run at once.
    """

    threads: int
    runs: int


def run_threads(cores: int) -> RunThreads:
    """Part some cores among runs.

    Args:
        cores: that may be used, at least 1.
    """
    runs = min(cores, _MOST_RUNS)
    return RunThreads(threads=cores // runs, runs=runs)
