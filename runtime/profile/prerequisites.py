"""Before a profile: the same backends for everybody, and the engines that they run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vptkit.devices.drivers.cuda import probe
from vptkit.errors import MissingError, TargetError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.backends.engine_cache import list_engines
from vptkit.runtime.backends.selection import TRT_LIBRARIES
from vptkit.runtime.engine_build.builder import BuildOptions, build_engine
from vptkit.runtime.session.factory import open_session
from vptkit.shown_text import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vptkit.progress import Progress

    from .settings import ProfileSettings

__all__ = ["build_engines", "settle"]


def settle(bundles: Sequence[Path], settings: ProfileSettings) -> ProfileSettings:
    """Replace the backend "auto" by the one that runs the first bundle, with a line on why.

    Baselines and bundles that ran on different backends would be compared otherwise.

    Raises:
        MissingError: no backend runs it.
    """
    if "auto" not in settings.backends:
        return settings
    session = open_session(
        bundles[0], "auto", settings.threads, trust_engines=settings.trust_engines
    )
    tell(f"backend {session.backend}: {session.choice}")
    names = [session.backend if name == "auto" else name for name in settings.backends]
    return replace(settings, backend=",".join(dict.fromkeys(names)))


def build_engines(
    paths: Sequence[Path],
    settings: ProfileSettings,
    progress: Progress,
    *,
    like: Path | None = None,
    begin: Callable[[], None] = lambda: None,
) -> None:
    """Have an engine of each bundle in the cache, for each backend that runs engines.

    With "auto" a library that builds none is passed over, with a line to standard error.

    Args:
        paths: the bundles.
        settings: their backend and batches.
        progress: told about each build.
        like: a bundle whose engine tells the options, so that engines are compared that were built
            alike; without one of the library, and of what it does not tell, the usual.
        begin: called before each build.

    Raises:
        MissingError, TargetError: as of `builder.build_engine`.
    """
    for backend in settings.backends:
        _build(backend, paths, settings, progress, like, begin)


def _build(
    backend: str,
    paths: Sequence[Path],
    settings: ProfileSettings,
    progress: Progress,
    like: Path | None,
    begin: Callable[[], None],
) -> None:
    """For one backend; see `build_engines`."""
    auto = backend == "auto"
    if (auto and not _has_gpu()) or not (auto or backend in TRT_LIBRARIES):
        return
    libraries = tuple(TRT_LIBRARIES.values()) if auto else (TRT_LIBRARIES[backend],)
    for path in paths:
        for library in libraries:
            options = _options(library, settings, like)
            begin()
            try:
                build_engine(open_bundle(path), options, progress=progress)
                break
            except (MissingError, TargetError) as error:
                if not auto:
                    raise
                tell(f"{library}: {' '.join(str(error).split())}")


def _options(library: str, settings: ProfileSettings, like: Path | None) -> BuildOptions:
    least, likely, most = BuildOptions().batch
    most = max([most, *(settings.batches or ())])
    usual = BuildOptions(
        library=library, batch=(least, likely, most), trust_engines=settings.trust_engines
    )
    if like is None:
        return usual
    model = open_bundle(like)
    records = [engine.record for engine in list_engines(model) if engine.distrust is None]
    theirs = next((r["options"] for r in records if r["library"] == library), None)
    if theirs is None:
        return usual
    rest = {name: value for name, value in theirs.items() if name != "profile"}
    shapes = theirs["profile"].get(model.input)  # none of a fixed batch
    batch = usual.batch if shapes is None else tuple(shape[0] for shape in shapes)
    return replace(usual, **rest, batch=batch)


def _has_gpu() -> bool:
    try:
        probe()
    except MissingError:
        return False
    return True
