"""A profile from settings that are JSON: what the command line and a remote run share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.power.nvpmodel import choose_modes, require_root
from vptkit.progress import SILENT
from vptkit.runtime.measure.timing import Budget

from .benchmark import profile
from .power_mode_sweep import BoardAccess, pinned, sweep_power_modes
from .prerequisites import build_engines, settle
from .profiled_sessions import open_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.progress import Progress

    from .settings import ProfileSettings

__all__ = ["profile_bundles"]


def profile_bundles(
    bundles: Sequence[str | Path],
    settings: ProfileSettings,
    *,
    baselines: Sequence[Mapping[str, Path]] = (),
    board: BoardAccess | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Open bundles and profile them, in one power mode or in several.

    Engines of the baselines are built where the backend runs engines, with the options of their
    bundle's; the bundles' own must be there.

    Args:
        bundles: what was tuned.
        settings: how.
        baselines: for each bundle, name → bundle.
        board: how to reach power modes and clocks.
        progress: told about each round.

    Returns:
        As `benchmark.profile`, with `power` as `power_mode_sweep.sweep_power_modes`; memory is
        measured in one mode only.

    Raises:
        MissingError: modes or clocks are to be changed, and this is no Jetson or not root.
        TargetError: no mode could be entered, or the first one could not be restored.
    """
    board = board or BoardAccess()
    # Refused before engines are built for minutes
    modes = None if settings.power is None else choose_modes(settings.power, board.root)
    if modes is not None or settings.pin_clocks:
        require_root("--pin-clocks" if modes is None else "--power")
    paths = [Path(bundle) for bundle in bundles]
    settings = settle(paths, settings)
    for bundle, named in zip(paths, baselines, strict=False):  # no baselines, or one for each
        build_engines(tuple(named.values()), settings, _Words(progress), like=bundle)
    measure = partial(_measure, paths, settings, baselines, progress)
    if modes is not None:
        return sweep_power_modes(modes, measure, pin=settings.pin_clocks, board=board)
    if settings.pin_clocks:
        with pinned(board):
            return measure()
    return measure()


def _measure(
    bundles: Sequence[Path],
    settings: ProfileSettings,
    baselines: Sequence[Mapping[str, Path]],
    progress: Progress,
    *,
    memory: bool = True,
) -> dict[str, Any]:
    # Opened anew in every mode: a mode decides how many cores there are.
    candidates = open_candidates(
        bundles,
        baselines,
        adapter=settings.adapter,
        backends=settings.backends,
        threads=settings.threads,
        cuda_graph=settings.cuda_graph,
        trust_engines=settings.trust_engines,
    )
    return profile(
        candidates,
        batches=settings.batches,
        budget=Budget(rounds=settings.rounds, seconds=settings.seconds),
        seed=settings.seed,
        memory=memory and settings.memory,
        streams=settings.streams,
        energy=settings.energy,
        progress=progress,
    )


class _Words:
    """What a build says about itself, without its count: that is not the profile's."""

    total: int | None = None

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def update(self, advance: int = 1, text: str = "") -> None:
        """Pass the words on."""
        self._progress.update(0, f"a baseline's engine: {text}")
