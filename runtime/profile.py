"""Latency and memory of bundles, side by side in one run.

What is timed is `Session.run`: prepared uint8 images in, logits out. Decoding and resizing are not
part of it, and are the same for every candidate.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit import __version__
from vptkit.devices.detect import detect_machine
from vptkit.errors import TargetError, VptkitError
from vptkit.progress import SILENT

from .memory import Memory, measure_memory
from .session import open_session
from .timing import Budget, Ratio, Timing, compare, measure, random_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.bundle import Bundle
    from vptkit.progress import Progress

    from .session import Session

__all__ = ["Candidate", "open_candidates", "profile"]

FORMAT = "vptkit.profile/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One bundle under test.

    Attributes:
        name: unique in its profile.
        kind: what was tuned, or what it is compared with.
        session: the open bundle.
        adapters: of a bank, whom to ask: one for all images, or several in turn.
    """

    name: str
    kind: Literal["adapter", "baseline"]
    session: Session = field(repr=False)
    adapters: tuple[str, ...] = ()

    @property
    def batch(self) -> int | None:
        """The only batch it takes, or None if it takes any."""
        return self.session.bundle.batch

    def call(self, images: NDArray[np.uint8]) -> Callable[[], object]:
        """One run, without arguments."""
        if len(self.adapters) < 2:
            return partial(self.session.run, images, *self.adapters)
        turns = [self.adapters[i % len(self.adapters)] for i in range(len(images))]
        return partial(self.session.run, images, turns)


def open_candidates(
    bundles: Sequence[Path],
    baselines: Sequence[Mapping[str, Path]] = (),
    *,
    adapter: str | None = None,
    backend: str = "cpu",
    threads: int | None = None,
) -> list[Candidate]:
    """Open bundles, and the baselines that belong to them.

    A bank takes part once for each adapter, and once with all of them in turn.

    Baselines of one name whose backbone and multiply-accumulates are equal cost the same, so only
    the first is kept.

    Args:
        bundles: what was tuned.
        baselines: for each bundle, name → bundle (`vptkit.export.baseline.export_baselines`).
        adapter: only this one of a bank.
        backend, threads: of every session.

    Raises:
        BundleError: a bundle has no such adapter.
    """
    candidates: list[Candidate] = []
    names = []
    for path in bundles:
        session = open_session(path, backend, threads)
        for label, adapters in _parts(session.bundle, adapter).items():
            name = _unused(label, f"{path.name} {label}" if adapters else path.name, candidates)
            candidates.append(
                Candidate(name=name, kind="adapter", session=session, adapters=adapters)
            )
        banked = session.bundle.layout == "bank"
        names.append(session.bundle.name if banked else candidates[-1].name)
    kept: list[tuple[str, object]] = []
    for bundle, named in zip(names, baselines, strict=False):
        for name, path in named.items():
            session = open_session(path, backend, threads)
            cost = (session.bundle.spec, session.bundle.manifest["macs"], session.bundle.batch)
            if (name, cost) not in kept:
                kept.append((name, cost))
                unused = _unused(name, f"{name}, {bundle}", candidates)
                candidates.append(Candidate(name=unused, kind="baseline", session=session))
    return candidates


def profile(
    candidates: Sequence[Candidate],
    *,
    batches: Sequence[int] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    memory: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure candidates, interleaved, one batch size after the other.

    Args:
        candidates: bundles and baselines, on one backend.
        batches: batch sizes; a fixed-batch bundle takes part at its own only. Unless given: the
            fixed batches, or 1 if there are none.
        budget: how long to measure at each batch size.
        seed: of the images, the order in the rounds, and the bootstrap.
        memory: measure memory too, in child processes.
        clock: seconds; only differences count.
        progress: told about each round.

    Returns:
        {"format", "rows", "machine", "settings"}. Rows stand in the order of the candidates, batch
        by batch. "ratio" compares a row's median with that of the first baseline (without one: the
        first row) at the same batch.

    Raises:
        TargetError: no candidate takes one of the batch sizes.
        VptkitError: no candidates, or two of one name.
    """
    if not candidates or len({c.name for c in candidates}) != len(candidates):
        raise VptkitError("a profile needs candidates, each with a name of its own")
    budget = budget or Budget()
    groups = _groups(candidates, batches)
    progress.total = None if budget.rounds is None else budget.rounds * len(groups)
    machine = _machine(candidates)  # before the measurement: the load is not ours yet
    rows = []
    for batch, members in groups.items():
        progress.update(0, f"batch {batch}")
        footprints = [_footprint(c, batch) if memory else None for c in members]
        size = {c.name: c.session.bundle.preprocess.size for c in members}
        images = {s: random_images(batch, s, seed=seed) for s in set(size.values())}
        timings = measure(
            [c.call(images[size[c.name]]) for c in members],
            budget=budget,
            seed=seed,
            clock=clock,
            progress=progress,
        )
        rows += _rows(members, batch, timings, footprints, seed)
    settings = {"rounds": budget.rounds, "seconds": budget.seconds, "seed": seed}
    return {"format": FORMAT, "rows": rows, "machine": machine, "settings": settings}


def _parts(bundle: Bundle, adapter: str | None) -> dict[str, tuple[str, ...]]:
    """Name of a row → adapters that are asked in it."""
    if bundle.layout != "bank":
        return {bundle.name: ()}
    if adapter is not None:
        return {f"{bundle.name}: {bundle.entry(adapter)['name']}": (adapter,)}
    names = bundle.adapter_names
    rows: dict[str, tuple[str, ...]] = {f"{bundle.name}: {name}": (name,) for name in names}
    return rows if len(names) == 1 else {**rows, f"{bundle.name}: mixed": names}


def _groups(
    candidates: Sequence[Candidate], batches: Sequence[int] | None
) -> dict[int, list[Candidate]]:
    """Batch size → who takes part, sizes in ascending order."""
    fixed = {c.batch for c in candidates if c.batch is not None}
    sizes = sorted(fixed.union(batches) if batches else fixed or {1})
    if sizes[0] < 1:
        raise VptkitError(f"batch is {sizes[0]}, expected at least 1")
    groups = {size: [c for c in candidates if c.batch in (None, size)] for size in sizes}
    for size, members in groups.items():
        if not members:
            raise TargetError(
                f"no bundle takes batches of {size}: "
                + ", ".join(f"{c.name} takes {c.batch}" for c in candidates)
            )
    return groups


def _rows(
    members: Sequence[Candidate],
    batch: int,
    timings: Sequence[Timing],
    footprints: Sequence[Memory | None],
    seed: int,
) -> list[dict[str, Any]]:
    against = next((i for i, c in enumerate(members) if c.kind == "baseline"), 0)
    rows = []
    for i, (candidate, timing, footprint) in enumerate(
        zip(members, timings, footprints, strict=True)
    ):
        ratio = None
        if i != against:
            found: Ratio = compare(timing, timings[against], seed=seed)
            ratio = {"to": members[against].name, **found.to_json()}
        rows.append(_row(candidate, batch, timing, footprint) | {"ratio": ratio})
    return rows


def _row(
    candidate: Candidate, batch: int, timing: Timing, footprint: Memory | None
) -> dict[str, Any]:
    bundle = candidate.session.bundle
    ms = timing.summary()
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "backend": candidate.session.backend,
        "precision": bundle.precision,
        "batch": batch,
        "ms": ms,
        "images_per_s": 1000 * batch / ms["mean"] if ms["mean"] else None,
        "count": len(timing.ms),
        "warm_up": timing.warm_up,
        "settled": timing.settled,
        "memory_mb": None if footprint is None else footprint.to_json(),
        "path": str(bundle.path) if candidate.kind == "adapter" else None,
        "graph_sha256": bundle.manifest["files"][bundle.model.name],
        "macs": bundle.manifest["macs"],
    }


def _footprint(candidate: Candidate, batch: int) -> Memory | None:
    session = candidate.session
    return measure_memory(
        session.bundle.path, backend=session.backend, batch=batch, threads=session.threads
    )


def _machine(candidates: Sequence[Candidate]) -> dict[str, Any]:
    session = candidates[0].session
    versions = {"vptkit": __version__, "numpy": np.__version__, **session.versions}
    load = round(os.getloadavg()[0], 2)
    return {
        **detect_machine(),
        "session_threads": session.threads,
        "load": load,
        "versions": versions,
    }


def _unused(name: str, otherwise: str, candidates: Sequence[Candidate]) -> str:
    """The first of name, otherwise, "otherwise 2", … that no candidate has."""
    taken = {c.name for c in candidates}
    choices = [name, otherwise, *(f"{otherwise} {i}" for i in range(2, len(taken) + 3))]
    return next(choice for choice in choices if choice not in taken)
