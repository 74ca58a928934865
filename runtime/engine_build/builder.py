"""Builds an engine of a bundle for a GPU, in a child process, into the bundle's cache."""

from __future__ import annotations

import datetime as dt
import platform
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import vptkit
from vptkit.devices.drivers.cuda import Gpu
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.progress import SILENT
from vptkit.runtime.backends.engine_cache import (
    Engine,
    Here,
    Key,
    ask_for,
    engine_folder,
    exclusive,
    graph_digest,
    list_engines,
    store,
    timing_cache,
)

from .build_progress import Follower
from .engine_layers import Structure, bytes_of, located, messages, structure, structure_of_engine
from .memory_forecast import Forecast, forecast, require_possible, room_here, table_rows
from .worker_process import COMMAND, converse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vptkit.formats.bundle import Bundle
    from vptkit.progress import Progress

    from .memory_forecast import Room
    from .worker_process import Outcome

__all__ = [
    "BuildOptions",
    "Job",
    "build_engine",
    "carry_out",
    "foretell",
    "prepare_build",
    "profile_of",
]

_BANK_ROOM = 64
_BEAT_S = 5.0
_LOADING_S = 60.0  # a library that says nothing for so long hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What to build. What comes before `timing_cache` is part of the engine's key.

    Attributes:
        library: "tensorrt" or "tensorrt_rtx".
        sm: None for this machine's GPU; or a compute capability as 86: ahead of time, without a
            GPU, TensorRT-RTX only.
        batch: smallest, most likely and largest batch, of a bundle whose batch is free.
        bank_max: the most adapters of a bank; 64, or with more than 32 present twice that, and so
            on, unless given.
        workspace_mb: limit for the scratch memory of kernels. Bounded, because TensorRT's own
            default is all of the GPU's memory, which on a Jetson is the system's too.
        optimization_level: 0 to 5; the library's own (3) unless given.
        tf32: let fp32 products drop mantissa bits.
        timing_cache: keep kernel times for the next build.
        force: build although the engine is there, or the forecast says that it cannot be.
        trust_engines: one that is there need not be this user's work.
    """

    library: str = "tensorrt"
    sm: int | None = None
    batch: tuple[int, int, int] = (1, 8, 32)
    bank_max: int | None = None
    workspace_mb: int = 512
    optimization_level: int | None = None
    tf32: bool = False
    timing_cache: bool = True
    force: bool = False
    trust_engines: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise VptkitError(
                f"batch {','.join(map(str, self.batch))}: expected smallest, most likely and "
                "largest, as 1,8,32"
            )
        if self.workspace_mb < 1:
            raise VptkitError(f"workspace is {self.workspace_mb} MiB, expected at least 1")
        if self.optimization_level not in (None, *range(6)):
            raise VptkitError(f"optimization level {self.optimization_level}: expected 0 to 5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A build, ready to be carried out.

    Attributes:
        bundle, options: as given.
        key: of the engine that will come.
        profile: {input: [smallest, most likely, largest shape]}.
        forecast: of its memory; see `Forecast.tight`.
    """

    bundle: Bundle
    options: BuildOptions
    key: Key
    profile: dict[str, list[list[int]]]
    forecast: Forecast


def build_engine(
    bundle: Bundle, options: BuildOptions | None = None, *, progress: Progress = SILENT
) -> Engine:
    """Build the engine of a bundle, unless the same is there already.

    Raises:
        MissingError: no GPU, or the library is not installed.
        TargetError: the library makes no engine of this graph, for this target, or in this memory.
        VptkitError: options that do not fit the bundle.
        OutputError: the engine cannot be written.
    """
    job = prepare_build(bundle, options or BuildOptions(), progress=progress)
    return carry_out(job, progress=progress)


def prepare_build(
    bundle: Bundle,
    options: BuildOptions,
    *,
    room: Room | None = None,
    progress: Progress = SILENT,
    command: Sequence[str] = COMMAND,
    beat_s: float = _BEAT_S,
    loading_s: float = _LOADING_S,
) -> Job:
    """Find out what is here and what the build would be.

    Args:
        bundle, options: what to build.
        room: the memory of the target; this machine's unless given.
        progress: told now and then that the library still loads.
        command, beat_s: the child, see `worker_process.converse`.
        loading_s: how long the library may take to load.

    Raises:
        MissingError: as of `build_engine`, or the library hangs.
        TargetError, VptkitError: as of `build_engine`.
    """
    if options.sm is not None and options.library == "tensorrt":
        raise TargetError(
            "TensorRT builds an engine on the GPU that runs it, not for another one. Run vptkit "
            "build on the board, or vptkit profile BUNDLE --on user@host from here; ahead of time "
            "only --backend tensorrt-rtx builds."
        )
    profile = profile_of(bundle, options)
    outcome = converse(
        {"library": options.library, "model": None, "sm": options.sm},
        listen=partial(_tell_of_loading, options.library, progress),
        command=command,
        timeout_s=loading_s,
        beat_s=beat_s,
    )
    version, gpu, free = _identity(options.library, outcome)
    target = "{}.{}".format(*divmod(options.sm or 0, 10))
    here = Here(
        library=options.library,
        version=version,
        capability=target if gpu is None else gpu.cc,
        gpu=None if gpu is None else gpu.name,
        sms=None if gpu is None else gpu.sms,
        graph=graph_digest(bundle),
    )
    _require_support(bundle, here)
    chosen = {
        "profile": profile,
        "workspace_mb": options.workspace_mb,
        "optimization_level": options.optimization_level,
        "tf32": options.tf32,
    }
    return Job(
        bundle=bundle,
        options=options,
        key=Key(here=here, options=chosen),
        profile=profile,
        forecast=foretell(bundle, options, room or room_here(gpu, free=free)),
    )


def carry_out(
    job: Job,
    *,
    progress: Progress = SILENT,
    command: Sequence[str] = COMMAND,
    beat_s: float = _BEAT_S,
) -> Engine:
    """Build; the engine and its record appear whole or not at all.

    Ctrl-C ends the child. Two builds in one cache wait for each other; the second finds the first
    one's engine. Of several engines that fit, sessions take the one that was asked for last.

    Raises:
        MissingError, TargetError, OutputError: as of `build_engine`.
    """
    require_possible(job.forecast, force=job.options.force)
    folder = engine_folder(job.bundle)
    with exclusive(folder, lambda: progress.update(0, "waiting for another build")):
        if not job.options.force:
            for engine in list_engines(job.bundle):
                distrusted = engine.distrust is not None and not job.options.trust_engines
                if engine.path.stem == job.key.digest and not distrusted and engine.whole:
                    ask_for(engine)
                    return engine

        def write(part: Path) -> dict[str, Any]:
            begun = time.perf_counter()
            with job.bundle.graph() as model:
                outcome = converse(
                    _request(job, model, folder, part),
                    listen=Follower(progress),
                    command=command,
                    beat_s=beat_s,
                )
            result = _require_done(job, outcome)
            return _facts(job, outcome.log, result, time.perf_counter() - begun)

        return store(folder, job.key, write)


def profile_of(bundle: Bundle, options: BuildOptions) -> dict[str, list[list[int]]]:
    """Smallest, most likely and largest shape of each input with a free dimension.

    A bank's tables may hold one adapter to `bank_max`. The likely number is the largest: kernels
    do not care, and the engine stays the same when an adapter is added.

    Raises:
        VptkitError: the bank holds more adapters than `bank_max`.
    """
    present, most = len(bundle.adapter_names), _most_adapters(bundle, options)
    rows = table_rows(bundle)
    if rows and not bundle.constant_tables and most < present:
        raise VptkitError(
            f"--bank-max {most} is less than the {present} adapters that {bundle.path} holds"
        )
    profile = {}
    for value in bundle.manifest["inputs"]:
        shape = value["shape"]
        if not isinstance(shape[0], str) or value["name"] not in bundle.fed:
            continue
        each = rows.get(value["name"])
        sizes = options.batch if each is None else (each, most * each, most * each)
        profile[value["name"]] = [[size, *map(int, shape[1:])] for size in sizes]
    return profile


def foretell(bundle: Bundle, options: BuildOptions, room: Room) -> Forecast:
    """Memory of the build and of the engine; no library is asked."""
    return forecast(
        bundle,
        batch=bundle.batch or options.batch[2],
        adapters=_most_adapters(bundle, options),
        workspace_mb=options.workspace_mb,
        room=room,
    )


# steps ---------------------------------------------------------------------------------------------


def _most_adapters(bundle: Bundle, options: BuildOptions) -> int:
    """64, doubled until twice the present adapters fit; or as asked for."""
    most = _BANK_ROOM
    while most < 2 * len(bundle.adapter_names):
        most *= 2
    return options.bank_max or most


def _tell_of_loading(library: str, progress: Progress, event: Mapping[str, Any]) -> None:
    if event["event"] == "beat":
        progress.update(0, f"{library} is loading, {event['seconds']:.0f} s")


def _identity(library: str, outcome: Outcome) -> tuple[str, Gpu | None, int | None]:
    """Version of the library, the GPU and its free bytes; a broken install may crash, or hang."""
    if outcome.missing is not None:
        raise MissingError(outcome.missing)
    if outcome.result is None:
        _, message = outcome.ended or ("start", "no answer")
        raise MissingError(
            f"{library} does not start here: {message}. What is wrong, and what mends it: "
            "vptkit doctor"
        )
    result, document = outcome.result, outcome.result["gpu"]
    if document is None:
        return result["version"], None, None
    numbers = {
        name: tuple(map(int, document[name].split("."))) for name in ("capability", "driver")
    }
    return result["version"], Gpu(**{**document, **numbers}), result.get("free_bytes")


def _require_support(bundle: Bundle, here: Here) -> None:
    """Refuse a graph that this version or this GPU cannot take."""
    requires = (bundle.manifest["lowering"] or {}).get("requires", {})
    least = requires.get("tensorrt")
    if here.library == "tensorrt" and least and _numbers(here.version) < _numbers(least):
        raise TargetError(
            f"{bundle.path}: a graph of precision {bundle.precision} needs TensorRT {least} or "
            f"newer, here is {here.version}. Export it as fp16, or use a newer JetPack."
        )
    least = requires.get("compute_capability")
    if least and _numbers(here.capability) < _numbers(least):
        raise TargetError(
            f"{bundle.path}: precision {bundle.precision} needs compute capability {least}, "
            f"{here.gpu or 'the target'} has {here.capability}. Export it as fp16."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _request(job: Job, model: Path, folder: Path, part: Path) -> dict[str, Any]:
    options, plan = job.options, job.bundle.manifest["lowering"] or {}
    types = [job.bundle.precision] if job.bundle.precision != "fp32" else []
    if job.bundle.precision == "int8" and plan.get("target") == "tensorrt":
        types.append("fp16")
    # TensorRT-RTX times nothing while it builds
    keeps_times = options.timing_cache and options.library == "tensorrt"
    return {
        "library": options.library,
        "model": str(model),
        "plan": str(part.resolve()),
        "sm": options.sm,
        "profile": job.profile,
        "free": options.batch,
        "types": types,
        "workspace_mb": options.workspace_mb,
        "optimization_level": options.optimization_level,
        "tf32": options.tf32,
        "timing_cache": str(timing_cache(folder, job.key.here).resolve()) if keeps_times else None,
    }


def _require_done(job: Job, outcome: Outcome) -> dict[str, Any]:
    """The child's result; whatever else it was is an error."""
    if outcome.missing is not None:
        raise MissingError(outcome.missing)
    name = job.options.library
    if outcome.result is None:
        stage, message = outcome.ended or ("start", "no answer")
        advice = f". Most likely the memory did not do. {job.forecast.advice()}"
        raise TargetError(
            f"{job.bundle.path}: {name} made no engine ({stage}): {message}"
            f"{advice if 'SIGKILL' in message else ''}"
        )
    stage, errors = outcome.result["stage"], list(outcome.result["errors"])
    if stage == "done":
        return outcome.result
    known = structure(outcome.log).operators
    errors += [located(t, known) for t in messages(outcome.log, "ERROR", "INTERNAL_ERROR")]
    texts = [_said(error) for error in errors] or ["no message"]
    advice = f" {job.forecast.advice()}" if "memory" in texts[-1].lower() else ""
    raise TargetError(
        f"{job.bundle.path}: {name} made no engine ({stage}): {'; '.join(texts[:3])}{advice}"
    )


def _said(error: Mapping[str, Any]) -> str:
    node = error["node"]
    return error["message"] if node is None else f"{node} [{error['operator']}]: {error['message']}"


def _facts(job: Job, log: str, result: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The record's second part."""
    found: Structure = structure(log)
    if result["inspector"]:
        found = structure_of_engine(result["inspector"], log)
    return {
        "bundle": job.bundle.name,
        "precision": job.bundle.precision,
        "seconds": round(seconds, 1),
        "built_at": dt.datetime.now(dt.timezone.utc).isoformat(),
        "structure": found.to_json(),
        "layers": [layer.to_json() for layer in found.layers],
        "memory": {
            "weights_bytes": bytes_of(log, "Weights"),
            "activation_bytes": bytes_of(log, "Activation"),
            "builder_peak_mb": result["peak_rss_mb"],
        },
        "forecast": job.forecast.to_json(),
        "versions": {"vptkit": vptkit.__version__, "python": platform.python_version()},
    }
