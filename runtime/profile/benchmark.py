"""Latency, memory, throughput and energy of bundles, side by side in one run.

What is timed is `Session.run`: prepared uint8 images in, logits out, both in host memory ("ms", and
"end_to_end" among the times). Decoding and resizing are not part of it, and are the same for every
candidate. Where a backend can take a run apart (TensorRT), enqueue, GPU and host time are measured
in runs of their own after that, interleaved too. Energy comes last, each candidate alone.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit import __version__
from vptkit.devices.power.operating_state import compare_states
from vptkit.devices.probes.machine import detect_machine
from vptkit.errors import TargetError, VptkitError
from vptkit.progress import SILENT
from vptkit.runtime.backends.selection import on_nvidia
from vptkit.runtime.measure.energy import EnergyMeter
from vptkit.runtime.measure.memory_footprint import measure_memory
from vptkit.runtime.measure.telemetry import Instruments, find_instruments
from vptkit.runtime.measure.throughput import measure_throughput
from vptkit.runtime.measure.timing import (
    Budget,
    Ratio,
    Timing,
    compare_medians,
    measure_latency,
    random_images,
)

from .latency_breakdown import take_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vptkit.progress import Progress

    from .profiled_sessions import Candidate

__all__ = ["profile"]

FORMAT = "vptkit.profile/1"


def profile(
    candidates: Sequence[Candidate],
    *,
    batches: Sequence[int] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    memory: bool = True,
    streams: int = 1,
    energy: float = 0.0,
    instruments: Instruments | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure candidates, interleaved, one batch size after the other.

    Args:
        candidates: bundles and baselines, all on one backend or each on several.
        batches: batch sizes; a fixed-batch bundle takes part at its own only. Unless given: the
            fixed batches, or 1 if there are none.
        budget: how long to measure at each batch size.
        seed: of the images, the order in the rounds, and the bootstrap.
        memory: measure memory too, in child processes.
        streams: with 2 and more, also the throughput of so many sessions at once, for the budget's
            seconds shared among the candidates.
        energy: seconds for which each candidate is run alone while power is measured; 0 for none.
        instruments: state and power of the machine; those that are found, unless given.
        clock: seconds; only differences count.
        progress: told about each round.

    Returns:
        {"format", "rows", "machine", "state", "settings"}. Rows stand in the order of the
        candidates, batch by batch. "ratio" compares a row's median with that of the first baseline
        (without one: the first row) at the same batch. "times" are "enqueue", "gpu", "host" and
        "end_to_end", each None where the backend has no such time. "distribution" is
        [percent, ms], of all calls. "energy" and "streams" say what
        they hold, or None; "memory_mb" is as of `memory_footprint.Memory`, or with None for each figure and
        an "unavailable" that says why. "portions" is how often a batch goes through the engine;
        "cuda_graph" whether all of these launches were replayed. "unsteady" lists what makes the
        row doubtful: throttling, and changes of clocks or power mode since the start of its batch
        size.

    Raises:
        TargetError: no candidate takes one of the batch sizes.
        VptkitError: no candidates, two of one name, or settings out of range.
    """
    if not candidates or len({c.name for c in candidates}) != len(candidates):
        raise VptkitError("a profile needs candidates, each with a name of its own")
    if streams < 1 or not energy >= 0:
        raise VptkitError(
            f"streams is {streams} and energy {energy} s, expected at least 1 and at least 0"
        )
    budget = budget or Budget()
    groups = _groups(candidates, batches)
    progress.total = None if budget.rounds is None else budget.rounds * len(groups)
    tools = instruments or find_instruments(_metered(candidates))
    machine = _machine(candidates)  # before the measurement: the load is not ours yet
    first = state = tools.state()
    meter = EnergyMeter(tools, energy, clock)
    throttled: list[str] = []
    rows: list[dict[str, Any]] = []
    for batch, members in groups.items():
        progress.update(0, f"batch {batch}")
        footprints = [_footprint(c, batch) if memory else None for c in members]
        images = _images(members, batch, seed)
        timings = measure_latency(
            [c.call(images[c.name]) for c in members],
            budget=budget,
            seed=seed,
            clock=clock,
            progress=progress,
        )
        parts = take_apart(members, images, rounds=timings[0].count, seed=seed)
        added = _rows(members, batch, timings, footprints, seed)
        for row, candidate, times in zip(added, members, parts, strict=True):
            row["times"] = times | {"end_to_end": row["ms"]}
            row["streams"] = None
            if streams > 1:
                progress.update(0, f"batch {batch}, {streams} streams")
                seconds = budget.seconds / len(members)
                row["streams"] = _throughput(
                    candidate, images[candidate.name], streams, seconds, row["images_per_s"], clock
                )
            if energy and tools.meter is not None:
                progress.update(0, f"batch {batch}, energy of {candidate.name}")
            row["energy"] = meter.measure(candidate.call(images[candidate.name]), batch)
        before, state = state, tools.state()
        slowed, changed = compare_states(before, state)
        throttled += [text for text in slowed if text not in throttled]
        mode = state["power_mode"]
        for row in added:
            row["power_mode"] = None if mode is None else mode["name"]
            row["unsteady"] = [*slowed, *changed]
        rows += added
    settings = {
        "rounds": budget.rounds,
        "seconds": budget.seconds,
        "seed": seed,
        "streams": streams,
        "energy_seconds": energy,
    }
    states = {
        "before": first,
        "after": state,
        "throttled": throttled,
        "changed": compare_states(first, state)[1],
    }
    return {
        "format": FORMAT,
        "rows": rows,
        "machine": machine,
        "state": states,
        "settings": settings,
    }


def _metered(candidates: Sequence[Candidate]) -> str:
    """The backend whose device is watched: of several the first on a GPU of NVIDIA's."""
    backends = [candidate.session.backend for candidate in candidates]
    return next(filter(on_nvidia, backends), backends[0])


def _images(members: Sequence[Candidate], batch: int, seed: int) -> dict[str, NDArray[np.uint8]]:
    """Candidate → its images; the same for all of one size."""
    sizes = {c.name: c.session.bundle.preprocess.size for c in members}
    images = {size: random_images(batch, size, seed=seed) for size in set(sizes.values())}
    return {name: images[size] for name, size in sizes.items()}


def _throughput(
    candidate: Candidate,
    images: NDArray[np.uint8],
    streams: int,
    seconds: float,
    single: float | None,
    clock: Callable[[], float],
) -> dict[str, float | None]:
    if candidate.open is None:
        raise VptkitError(f"{candidate.name}: streams need a candidate that can be opened again")
    sessions = [candidate.session, *(candidate.open() for _ in range(streams - 1))]
    calls = [candidate.call(images, session) for session in sessions]
    found = measure_throughput(calls, seconds=seconds, clock=clock)
    return found.to_json(batch=len(images), single=single)


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
    footprints: Sequence[dict[str, Any] | None],
    seed: int,
) -> list[dict[str, Any]]:
    against = next((i for i, c in enumerate(members) if c.kind == "baseline"), 0)
    rows = []
    for i, (candidate, timing, footprint) in enumerate(
        zip(members, timings, footprints, strict=True)
    ):
        ratio = None
        if i != against:
            found: Ratio = compare_medians(timing, timings[against], seed=seed)
            ratio = {"to": members[against].name, **found.to_json()}
        rows.append(_row(candidate, batch, timing, footprint) | {"ratio": ratio})
    return rows


def _row(
    candidate: Candidate, batch: int, timing: Timing, footprint: dict[str, Any] | None
) -> dict[str, Any]:
    bundle = candidate.session.bundle
    ms = timing.summary()
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "backend": candidate.session.backend,
        "precision": bundle.precision,
        "cuda_graph": candidate.replayed,
        "portions": candidate.portions(batch),
        "transfers": candidate.transfers,
        "batch": batch,
        "ms": ms,
        "distribution": timing.distribution(),
        "images_per_s": 1000 * batch / ms["mean"] if ms["mean"] else None,
        "count": timing.count,
        "warm_up": timing.warm_up,
        "settled": timing.settled,
        "memory_mb": footprint,
        "path": str(bundle.path) if candidate.kind == "adapter" else None,
        "graph_sha256": bundle.manifest["files"][bundle.model.name],
        "macs": bundle.manifest["macs"],
    }


def _footprint(candidate: Candidate, batch: int) -> dict[str, Any] | None:
    """Its memory; where that cannot be measured the reason, for the times are worth having alone."""
    session = candidate.session
    try:
        found = measure_memory(
            session.bundle.path,
            backend=session.backend,
            batch=batch,
            threads=session.threads,
            trust_engines=candidate.trust_engines,
        )
    except VptkitError as error:
        return {"peak": None, "increase": None, "device": None, "unavailable": str(error)}
    return None if found is None else found.to_json()


def _machine(candidates: Sequence[Candidate]) -> dict[str, Any]:
    session = candidates[0].session
    versions = {"vptkit": __version__, "numpy": np.__version__}
    for candidate in candidates:
        versions |= candidate.session.versions
    load = round(os.getloadavg()[0], 2)
    return {
        **detect_machine(),
        "session_threads": session.threads,
        "load": load,
        "versions": versions,
    }
