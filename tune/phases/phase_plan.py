"""A training as phases: all at once, or head and LayerNorms in turns.

`methods` 4.3: in a head phase the norms (and prompts) rest, so features may be computed once; in a
norm phase the head rests. One cycle is "linear probe, then LayerNorms" (LP-LN). Everything follows
from the configuration and the epochs done: a resumed run finds its phase again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.methods.tuned_model import Part
    from vptkit.tune.training.train_state import TrainState

__all__ = ["Phase", "epochs_of", "phases", "stalled"]


@dataclass(frozen=True, slots=True)
class Phase:
    """Some epochs with one optimiser and one schedule.

    Attributes:
        part: what learns: "all", the "head", or the "body" (all but the head).
        epochs: counted from the start of the run.
        cycle: from 1; 0 if there are no cycles.
    """

    part: Part
    epochs: range
    cycle: int = 0


def phases(config: TuneConfig) -> tuple[Phase, ...]:
    """The phases of a run, one after the other."""
    if config.method == "linear":
        return ()  # the probe is all there is
    if not config.cycles:
        return (Phase("all", range(config.epochs)),)
    found: list[Phase] = []
    parts: tuple[tuple[Part, int], ...] = (
        ("head", config.head_epochs),
        ("body", config.ln_epochs),
    )
    for cycle in range(1, config.cycles + 1):
        for part, count in parts:
            first = found[-1].epochs.stop if found else 0
            found.append(Phase(part, range(first, first + count), cycle))
    return tuple(found)


def epochs_of(config: TuneConfig) -> int:
    """How many epochs a run may have; the probe alone has none."""
    plan = phases(config)
    return plan[-1].epochs.stop if plan else 0


def stalled(phase: Phase, state: TrainState, config: TuneConfig) -> bool:
    """Whether the cycle before this phase brought no better validation accuracy."""
    if phase.cycle < 2 or phase.part != "head" or state.epoch != phase.epochs.start:
        return False
    return state.best_epoch <= state.epoch - config.head_epochs - config.ln_epochs
