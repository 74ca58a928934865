"""Latencies that others published, with their sources: how latencies.toml is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .board import PRECISIONS
from .datasheet import FOLDER, open_table

if TYPE_CHECKING:
    from pathlib import Path

    from .datasheet import Table

__all__ = ["Geometry", "PublishedRun", "published_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A plain ViT: d, L, the hidden width of the MLP, T tokens, and the side of a patch."""

    width: int
    depth: int
    mlp: int
    tokens: int
    patch: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the blocks for one image."""
        linears = self.width * (4 * self.width + 2 * self.mlp)
        return self.depth * (self.tokens * linears + 2 * self.tokens**2 * self.width)

    @property
    def weights(self) -> int:
        """Numbers that each run reads: the blocks' linears and the patch embedding."""
        linears = self.width * (4 * self.width + 2 * self.mlp)
        return self.depth * linears + 3 * self.patch**2 * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """One latency.

    Attributes:
        board, mode: key of the board; its power mode, None for its full clocks.
        precision: of the graph.
        model, geometry: the network.
        batch: images.
        ms: of the batch.
        source: who says so.
    """

    board: str
    mode: str | None
    precision: str
    model: str
    geometry: Geometry
    batch: int
    ms: float
    source: str


@cache
def published_runs(folder: Path = FOLDER) -> tuple[PublishedRun, ...]:
    """All of them, in the order of the file.

    Raises:
        VptkitError: the file breaks the schema; the message names the place.
    """
    table = open_table("latencies", folder)
    models = _models(table.table("models"))
    runs = [run for entry in table.tables("published") for run in _runs(entry, models)]
    table.end()
    return tuple(runs)


def _models(table: Table) -> dict[str, Geometry]:
    found = {}
    for name in table.names():
        entry = table.table(name)
        found[name] = Geometry(
            width=entry.number("width", 64, 8192),
            depth=entry.number("depth", 1, 200),
            mlp=entry.number("mlp", 64, 65536),
            tokens=entry.number("tokens", 2, 100_000),
            patch=entry.number("patch", 1, 256),
        )
        entry.end()
    return found


def _runs(entry: Table, models: dict[str, Geometry]) -> list[PublishedRun]:
    shared: dict[str, Any] = {
        "board": entry.text("board"),
        "mode": entry.text("mode") if "mode" in entry else None,
        "precision": entry.choice("precision", tuple(PRECISIONS)),
        "source": entry.source(),
    }
    table = entry.table("runs")
    found = []
    for model in table.names():
        if model not in models:
            raise table.wrong(model, f"is none of the models {', '.join(models)}")
        for batch, ms in table.pairs(model):
            found.append(
                PublishedRun(
                    model=model, geometry=models[model], batch=round(batch), ms=ms, **shared
                )
            )
    entry.end()
    return found
