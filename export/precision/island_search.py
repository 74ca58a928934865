"""Which parts must stay in fp32? The smallest set of islands that passes the gate.

Every group is lowered alone once, and ranked by the noise that it brings into the logits. The
noisiest k groups become islands, k found by halving; then each of them is tried without, so that no
single island of the result can be left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx

from vptkit.export.analysis.dataflow import groups_of
from vptkit.export.numerics.accuracy_gate import MIN_AGREEMENT, GateResult, compare, with_split
from vptkit.export.numerics.evidence import logits_of
from vptkit.export.numerics.precision_simulation import needs_simulation, simulated

from .lowering import precise
from .pixel_centring import centre_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from vptkit.export.numerics.evidence import Evidence, Images

    from .lowering import Lowering

__all__ = ["Bisection", "find_islands", "smallest_islands"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """What was found.

    Attributes:
        islands: the groups to keep in fp32; none if the precision passes as it is.
        gate: figures with these islands.
        before: figures without any.
        noise_db: group → SQNR of the logits in dB with this group alone lowered (None: no noise).
        trials: graphs that were run.
    """

    islands: tuple[str, ...]
    gate: GateResult
    before: GateResult
    noise_db: dict[str, float | None]
    trials: int

    def to_json(self) -> dict[str, Any]:
        """As `vptkit bisect --json` prints it, without the bundle."""
        return {
            "islands": list(self.islands),
            "flags": " ".join(f"--island {name}" for name in self.islands),
            "gate": self.gate.to_json(),
            "before": self.before.to_json(),
            "noise_db": self.noise_db,
            "trials": self.trials,
        }


def find_islands(
    model: onnx.ModelProto,
    wanted: Lowering,
    evidence: Evidence,
    tick: Callable[[str], None] = lambda _: None,
    thresholds: NDArray[np.float32] | None = None,
) -> Bisection:
    """Search.

    Args:
        model: fp32.
        wanted: precision, target and bound; islands given there are kept in any case.
        evidence: runner and gate images; int8 and fp8 need calibration images too.
        tick: told in a few words about each graph that was run.
        thresholds: as of `lowering.lower`.

    Raises:
        ValueError: no gate images.
    """
    if evidence.gate is None:
        raise ValueError("bisect needs gate images")
    trial = _Trial(model, wanted, evidence, evidence.gate, tick, thresholds)
    before = trial(())
    if before.ok:
        return Bisection(
            islands=wanted.islands, gate=before, before=before, noise_db={}, trials=trial.count
        )
    noise: dict[str, float | None] = {}
    for group in trial.groups:
        others = tuple(g for g in trial.groups if g != group)
        noise[group] = trial(others, f"only {group} lowered").sqnr_db
    ranked = sorted(noise, key=lambda g: float("inf") if noise[g] is None else float(noise[g] or 0))
    islands = smallest_islands(ranked, lambda names: trial(names).ok)
    return Bisection(
        islands=(*wanted.islands, *islands),
        gate=trial(islands),
        before=before,
        noise_db=noise,
        trials=trial.count,
    )


def smallest_islands(
    ranked: list[str], passes: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """A set of names that passes and from which none can be left out.

    Args:
        ranked: the most suspicious first; all of them together pass.
        passes: the test. Not assumed to be monotonic: what is returned was tried.
    """
    low, high = 0, len(ranked)  # the first `low` fail, the first `high` pass
    while high - low > 1:
        middle = (low + high) // 2
        if passes(tuple(ranked[:middle])):
            high = middle
        else:
            low = middle
    kept = ranked[:high]
    for name in reversed(ranked[:high]):
        fewer = [one for one in kept if one != name]
        if passes(tuple(fewer)):
            kept = fewer
    return tuple(kept)


class _Trial:
    """Lowers with given islands and judges; remembers what it has seen."""

    def __init__(
        self,
        model: onnx.ModelProto,
        wanted: Lowering,
        evidence: Evidence,
        images: Images,
        tick: Callable[[str], None],
        thresholds: NDArray[np.float32] | None,
    ) -> None:
        self.wanted, self.evidence, self.images, self.tick = wanted, evidence, images, tick
        self.thresholds = thresholds
        self.expected: NDArray[np.float64] = logits_of(evidence.run(model), images)
        self.base = onnx.ModelProto()
        self.base.CopyFrom(model)
        centre_pixels(self.base)
        present = dict.fromkeys(groups_of(self.base).values())
        self.groups = [g for g in present if g not in wanted.islands]
        self.count = 0
        self._seen: dict[frozenset[str], GateResult] = {}

    def __call__(self, islands: tuple[str, ...], what: str = "") -> GateResult:
        key = frozenset(islands)
        if key not in self._seen:
            self._seen[key] = self._run((*self.wanted.islands, *islands), what)
        return self._seen[key]

    def _run(self, islands: tuple[str, ...], what: str) -> GateResult:
        wanted = replace(self.wanted, islands=islands)
        low = precise(self.base, wanted, islands, self.evidence, {})
        imitated = needs_simulation(low)
        found = logits_of(self.evidence.run(simulated(low) if imitated else low), self.images)
        bound, name = self.wanted.min_agreement, self.wanted.precision
        result = compare(
            self.expected,
            found,
            self.images.truth,
            min_agreement=MIN_AGREEMENT[name] if bound is None else bound,
            simulated=imitated,
            images=self.images.digest,
            thresholds=self.thresholds,
        )
        result = with_split(result, self.evidence)
        self.count += 1
        self.tick(f"{what or f'{len(islands)} islands'}: {result.agreement:.2%}")
        return result
