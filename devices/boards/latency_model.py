"""How long a ViT may take on a board that nobody measured: a roofline with two fitted numbers.

    ms = floor / efficiency + depth · block_ms

`floor` is `Board.floor_ms`: multiplications at the peak, or the weights once through the memory. Real
kernels reach a share of it (the efficiency), and every block launches kernels, which takes its time
however fast the GPU is. Both numbers are fitted on what others published (latencies.toml), by least
squares of the relative error, every board with the same weight. How good that is, is told by leaving one
board out after the other: its latencies are predicted from the others' alone. With so few boards that
error is large, and no prediction should be shown without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vptkit.errors import TargetError

from .catalog import board
from .published_latencies import published_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .board import Board
    from .published_latencies import PublishedRun

__all__ = ["LatencyModel", "Predicted", "fitted_model"]

_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
_ALIKE = {"bf16": "fp16"}  # the same peak and the same bytes
_FEWEST = 2  # boards: with one there is none to leave out


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Milliseconds, and between which of them the error of the model puts the truth."""

    ms: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """The two numbers, and how far they are off.

    Attributes:
        precision: which they were fitted for.
        efficiency: share of the roofline that is reached.
        block_ms: milliseconds of each block beside that.
        runs: published latencies that were fitted.
        left_out: board → predicted over published of each of its runs, fitted without that board.
        sources: who published them.
    """

    precision: str
    efficiency: float
    block_ms: float
    runs: int
    left_out: Mapping[str, tuple[float, ...]]
    sources: tuple[str, ...]

    @property
    def ratios(self) -> list[float]:
        """Predicted over published of all that were left out, in ascending order."""
        return sorted(ratio for of in self.left_out.values() for ratio in of)

    @property
    def typical_error(self) -> float:
        """Median of how far a prediction is off, as a share of the published latency."""
        errors = sorted(abs(ratio - 1) for ratio in self.ratios)
        return (errors[(len(errors) - 1) // 2] + errors[len(errors) // 2]) / 2

    def predict(
        self, place: Board, *, macs: float, weight_bytes: float, depth: int, batch: int = 1
    ) -> Predicted:
        """A run on a board at its full clocks.

        Args:
            place: the board.
            macs: multiply-accumulates of one image.
            weight_bytes: of the graph.
            depth: blocks.
            batch: images.

        Returns:
            The bounds are those within which every published latency lay that was left out.

        Raises:
            TargetError: the board has not the precision, or no peak of it is known.
        """
        floor = place.floor_ms(
            macs=macs * batch,
            weight_bytes=weight_bytes,
            activation_bytes=0,
            precision=self.precision,
        )
        ms = floor / self.efficiency + depth * self.block_ms
        ratios = self.ratios
        return Predicted(ms=ms, low=ms / max(1.0, ratios[-1]), high=ms / min(1.0, ratios[0]))


def fitted_model(precision: str, runs: Sequence[PublishedRun] | None = None) -> LatencyModel:
    """The model of a precision.

    Args:
        precision: of a graph.
        runs: to fit; those that were published unless given.

    Raises:
        TargetError: latencies of fewer than two boards were published for it.
    """
    known = _ALIKE.get(precision, precision)
    every = published_runs() if runs is None else runs
    chosen = [run for run in every if run.precision == known]
    names = list(dict.fromkeys(run.board for run in chosen))
    if len(names) < _FEWEST:
        raise TargetError(
            f"{precision}: latencies of {len(names)} boards are published, expected {_FEWEST} or more; "
            "measure instead (vptkit profile)"
        )
    slope, block_ms = _fit(chosen)
    left_out = {}
    for name in names:
        without = _fit([run for run in chosen if run.board != name])
        of = [run for run in chosen if run.board == name]
        left_out[name] = tuple(_predicted(run, without) / run.ms for run in of)
    return LatencyModel(
        precision=precision,
        efficiency=1 / slope,
        block_ms=block_ms,
        runs=len(chosen),
        left_out=left_out,
        sources=tuple(dict.fromkeys(run.source for run in chosen)),
    )


def _floor(run: PublishedRun) -> float:
    return board(run.board).floor_ms(
        macs=run.geometry.macs * run.batch,
        weight_bytes=run.geometry.weights * _BYTES[run.precision],
        activation_bytes=0,
        precision=run.precision,
        mode=run.mode,
    )


def _predicted(run: PublishedRun, fit: tuple[float, float]) -> float:
    return fit[0] * _floor(run) + fit[1] * run.geometry.depth


def _fit(runs: Sequence[PublishedRun]) -> tuple[float, float]:
    """(1 / efficiency, block_ms) that make Σ w ((predicted - published) / published)² least.

    Neither is negative: where the best block_ms would be, it is 0.
    """
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.board] = counts.get(run.board, 0) + 1
    ff = fd = dd = f1 = d1 = 0.0  # weighted sums of products of floor, depth and 1, over ms
    for run in runs:
        f, d, w = _floor(run) / run.ms, run.geometry.depth / run.ms, 1 / counts[run.board]
        ff, fd, dd = ff + w * f * f, fd + w * f * d, dd + w * d * d
        f1, d1 = f1 + w * f, d1 + w * d
    determinant = ff * dd - fd * fd
    if determinant > 1e-9 * ff * dd:
        slope, block_ms = (f1 * dd - d1 * fd) / determinant, (ff * d1 - fd * f1) / determinant
        if slope > 0 and block_ms >= 0:
            return slope, block_ms
    return f1 / ff, 0.0
