"""Before a profile: one backend for everybody, and the engines that it runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from vptkit.bundle import open_bundle
from vptkit.devices.cuda import probe
from vptkit.errors import MissingError, TargetError

from .backends import TRT_LIBRARIES
from .build import BuildOptions, build
from .engines import list_engines
from .session import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.bundle import Bundle
    from vptkit.progress import Progress

    from .settings import ProfileSettings

__all__ = ["build_engines", "settle"]


def settle(bundles: Sequence[Path], settings: ProfileSettings) -> ProfileSettings:
    """Replace the backend "auto" by the one that runs the first bundle, with a line on why.

    Baselines and bundles that ran on different backends would be compared otherwise.

    Raises:
        MissingError: no backend runs it.
    """
    if settings.backend != "auto":
        return settings
    session = open_session(bundles[0], "auto", settings.threads)
    sys.stderr.write(f"backend {session.backend}: {session.choice}\n")
    return replace(settings, backend=session.backend)


def build_engines(paths: Sequence[Path], settings: ProfileSettings, progress: Progress) -> None:
    """Have an engine of each bundle in the cache, if the backend runs engines.

    With "auto" a library that builds none is passed over, with a line to standard error.

    Raises:
        MissingError, TargetError: as of `build.build`.
    """
    auto = settings.backend == "auto"
    if (auto and not _has_gpu()) or not (auto or settings.backend in TRT_LIBRARIES):
        return
    libraries = tuple(TRT_LIBRARIES.values()) if auto else (TRT_LIBRARIES[settings.backend],)
    least, likely, most = BuildOptions().batch
    most = max([most, *(settings.batches or ())])
    for path in paths:
        for library in libraries:
            options = BuildOptions(library=library, batch=(least, likely, most))
            try:
                _build(open_bundle(path), options, progress)
                break
            except (MissingError, TargetError) as error:
                if not auto:
                    raise
                sys.stderr.write(f"{library}: {error}\n")


def _build(bundle: Bundle, options: BuildOptions, progress: Progress) -> None:
    """Have an engine with these options, and have it the newest: a session takes that one."""
    engine = build(bundle, options, progress=progress)
    if list_engines(bundle)[0].path != engine.path:
        build(bundle, replace(options, force=True), progress=progress)


def _has_gpu() -> bool:
    try:
        probe()
    except MissingError:
        return False
    return True
