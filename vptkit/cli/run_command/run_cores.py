"""`vptkit run`: how the cores are used, by what is to be answered."""

from __future__ import annotations

from glob import has_magic
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vptkit.runtime.session.run_threads import RunThreads

__all__ = ["cores_of_run"]

_FEW = 16  # images


def cores_of_run(sources: Sequence[str], threads: int | None, *, streams: bool) -> RunThreads:
    """All cores for each run where its answer is waited for; parted where many images come.

    Args:
        sources: as on the command line.
        threads: cores that may be used; all usable ones unless given.
        streams: the sources are videos and cameras.
    """
    from vptkit.devices.probes.machine import usable_cores
    from vptkit.runtime.session.run_threads import RunThreads, run_threads

    cores = threads or usable_cores()
    if streams or not _many(sources):
        return RunThreads(threads=cores, runs=1)
    return run_threads(cores)


def _many(sources: Sequence[str]) -> bool:
    """Whether they are more than some image files: folders, globs, lists, or a good number."""
    from vptkit.decoding.image_formats import IMAGE_SUFFIXES

    named = all(
        PurePath(source).suffix.lower() in IMAGE_SUFFIXES and not has_magic(source)
        for source in sources
    )
    return len(sources) > _FEW or not named
