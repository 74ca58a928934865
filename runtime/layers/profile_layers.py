"""`vptkit profile --layers`: bundles run in turns while their backend takes the time of each layer.

What a profiler watches is slower than it is alone: a few percent on ONNX Runtime's processor backend. On
TensorRT each launch is waited for, without a CUDA graph. So shares and differences count here, and the
plain `vptkit profile` says how long a run takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.cuda import probe
from vptkit.errors import MissingError, TargetError, VptkitError
from vptkit.formats.bundle import LOGITS, open_bundle
from vptkit.formats.bundle_files import folder_name
from vptkit.progress import SILENT
from vptkit.runtime.backends.selection import default_backend, means_cpu, onnxruntime_graph
from vptkit.runtime.engine_build.engine_layers import structure_of_engine
from vptkit.runtime.measure.timing import random_images
from vptkit.runtime.session.baked_session import GraphSession
from vptkit.runtime.session.bank_session import BankSession
from vptkit.runtime.session.factory import open_session

from .compiled_layers import compiled_layers
from .layer_time import LayerProfile, LayerTime, Span
from .machine_roof import RoofMeter, why_no_roof
from .node_places import place_of_nodes, placed
from .onnxruntime_events import read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vptkit.formats.bundle import Bundle
    from vptkit.progress import Progress
    from vptkit.runtime.session.session_protocol import Session

__all__ = ["BACKENDS", "LayerOptions", "layers_backend", "names_of", "profile_layers"]

BACKENDS = ("cpu", "tensorrt", "tensorrt-rtx")
_WARM_UP = 3
_MOST_RUNS = 200  # each is about as large as the graph's nodes are many: 0.2 MB of a ViT-B


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """How to profile.

    Attributes:
        backend: one of BACKENDS. ONNX Runtime's GPU providers are none: they take the time of launches,
            not of the kernels.
        threads: CPU threads of a run; one for each usable core unless given.
        adapter: of a bank; all in turn unless given.
        batch: images of a run.
        rounds: runs of each bundle, at most 200; None lets `seconds` decide.
        seconds: for all bundles together.
        seed: of the images.
        trust_engines: as of `open_session`.
    """

    backend: str = "cpu"
    threads: int | None = None
    adapter: str | None = None
    batch: int = 1
    rounds: int | None = None
    seconds: float = 10.0
    seed: int = 0
    trust_engines: bool = False


@dataclass(slots=True, kw_only=True)
class _Profiled:
    """An open bundle, and what its runs left."""

    session: Session
    call: Callable[[], object]
    finish: Callable[[Sequence[Span]], LayerProfile]
    no_roof: str
    runs: list[Span]


def profile_layers(
    bundles: Mapping[str, Path], options: LayerOptions, *, progress: Progress = SILENT
) -> list[LayerProfile]:
    """The time of each layer of some bundles, in one process, run in turns.

    Without an NVIDIA GPU "tensorrt-rtx" compiles them: layers and their types, no times.

    Args:
        bundles: name → bundle.
        options: how.
        progress: told about each round.

    Returns:
        One profile each, in the same order.

    Raises:
        VptkitError: no bundles, a number out of range, or a backend that takes no layers' times.
        BundleError, MissingError: see `open_session`.
        TargetError: a bundle does not take this batch, or the backend cannot be profiled.
    """
    _require(bundles, options)
    if options.backend == "tensorrt-rtx" and not _gpu():
        return [compiled_layers(name, path, options.batch) for name, path in bundles.items()]
    progress.total = options.rounds
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vptkit-")))
        members = [
            _opened(stack, name, path, options, folder / f"layers-{number}")
            for number, (name, path) in enumerate(bundles.items())
        ]
        meter = _meter(stack, members)
        for member in members:
            for _ in range(_WARM_UP):
                member.call()
        ends = time.perf_counter() + options.seconds
        begun = time.perf_counter()
        for number in range(min(options.rounds or _MOST_RUNS, _MOST_RUNS)):
            if options.rounds is None and number > _WARM_UP and time.perf_counter() > ends:
                break
            for member in members:
                start = time.perf_counter()
                member.call()
                now = time.perf_counter()
                member.runs.append(Span(1000 * (start - begun), 1000 * (now - start)))
            if meter is not None:
                meter.measure()
            progress.update()
        return _under_roof([member.finish(member.runs) for member in members], meter)


def layers_backend(bundle: Path, named: str | None, threads: int | None) -> str:
    """The backend that is named, else what a session of this bundle would take."""
    chosen = named or default_backend()
    if chosen != "auto":
        return chosen
    if means_cpu(chosen):  # known without loading the graph, which the profile does itself
        return "cpu"
    with open_session(bundle, chosen, threads) as session:
        return session.backend


def names_of(bundles: Sequence[Path]) -> dict[str, Path]:
    """A name of its own for each bundle: its folder's, with that folder's parent where two are alike."""
    found: dict[str, Path] = {}
    for path in bundles:
        whole, name = path.absolute(), folder_name(path)
        while name in found:
            whole = whole.parent
            name = f"{whole.name}/{name}" if whole.name else f"{name} again"
        found[name] = path
    return found


def _under_roof(profiles: list[LayerProfile], meter: RoofMeter | None) -> list[LayerProfile]:
    """The same, all that can be compared with it under one roof."""
    if meter is None:
        return profiles
    roof = meter.roof(x for profile in profiles if not profile.no_roof for x in profile.layers)
    return [p if p.no_roof else dataclasses.replace(p, roof=roof) for p in profiles]


def _gpu() -> bool:
    try:
        probe()
    except MissingError:
        return False
    return True


def _meter(stack: contextlib.ExitStack, members: Sequence[_Profiled]) -> RoofMeter | None:
    """Of the processor, if somebody can be compared with it."""
    if all(member.no_roof for member in members):
        return None
    return stack.enter_context(contextlib.closing(RoofMeter(members[0].session.threads)))


def _require(bundles: Mapping[str, Path], options: LayerOptions) -> None:
    if not bundles:
        raise VptkitError("no bundles: name one or more to profile")
    if options.backend not in BACKENDS:
        raise VptkitError(
            f"--layers with --backend {options.backend}: expected {', '.join(BACKENDS)}. On a GPU ONNX "
            "Runtime tells how long launches take and not the kernels; OpenVINO is not asked."
        )
    for name, value in (("rounds", options.rounds), ("batch", options.batch)):
        if value is not None and value < 1:
            raise VptkitError(f"{name} is {value}, expected at least 1")
    if not options.seconds > 0:
        raise VptkitError(f"seconds is {options.seconds}, expected more than 0")


def _opened(
    stack: contextlib.ExitStack, name: str, path: Path, options: LayerOptions, prefix: Path
) -> _Profiled:
    bundle = open_bundle(path)
    _require_batch(bundle, options.batch)
    graph = _graph(bundle, options, prefix)
    kind: type[Any] = BankSession if bundle.layout == "bank" else GraphSession
    opened: dict[str, Any] = {"bundle": bundle, "backend": options.backend, "graph": graph}
    session: Session = stack.enter_context(kind(**opened))
    adapters = _adapters(bundle, options)
    images = random_images(options.batch, bundle.preprocess.size, seed=options.seed)
    run = session.run if LOGITS in bundle.outputs else session.features
    asked = [adapters[i % len(adapters)] for i in range(len(images))] if adapters else None

    def call() -> object:
        return run(images) if asked is None else run(images, asked)

    def finish(runs: Sequence[Span]) -> LayerProfile:
        own, layers, information = taken(runs)
        return LayerProfile(
            name=name,
            backend=options.backend,
            batch=options.batch,
            threads=graph.threads,
            adapters=adapters,
            runs=own,
            layers=layers,
            no_roof=why,
            bindings=(*bundle.fed, *bundle.outputs),
            information=information,
        )

    why = why_no_roof(options.backend, bundle.precision, graph.threads)
    taken = _from_onnxruntime(graph) if options.backend == "cpu" else _from_tensorrt(graph)
    return _Profiled(session=session, call=call, finish=finish, no_roof=why, runs=[])


# runs by the clock of the layers, the layers, and what the backend says of them
_Taken = tuple[tuple[Span, ...], tuple[LayerTime, ...], "dict[str, Any] | None"]


def _graph(bundle: Bundle, options: LayerOptions, prefix: Path) -> Any:
    if options.backend == "cpu":
        return onnxruntime_graph("cpu")(bundle, threads=options.threads, profile=prefix)
    from vptkit.runtime.backends.tensorrt_graph import TrtGraph

    library = options.backend.replace("-", "_")
    trust = options.trust_engines
    return TrtGraph(bundle, library=library, cuda_graph=False, trust_engines=trust)


def _require_batch(bundle: Bundle, batch: int) -> None:
    if bundle.batch not in (None, batch):
        raise TargetError(
            f"{bundle.path}: takes batches of {bundle.batch} only, not {batch}: --batch {bundle.batch}"
        )


def _adapters(bundle: Bundle, options: LayerOptions) -> tuple[str, ...]:
    if options.adapter is not None:
        bundle.entry(options.adapter)
        return (options.adapter,) if bundle.layout == "bank" else ()
    return bundle.adapter_names if bundle.layout == "bank" else ()


def _from_onnxruntime(graph: Any) -> Callable[[Sequence[Span]], _Taken]:
    def taken(runs: Sequence[Span]) -> _Taken:
        found, layers = read_events(graph.end_profile(), skip=_WARM_UP)
        if len(found) != len(runs):
            raise TargetError(f"ONNX Runtime profiled {len(found)} of {len(runs)} runs")
        return found, layers, None

    return taken


def _from_tensorrt(graph: Any) -> Callable[[Sequence[Span]], _Taken]:
    """The engine's layers; what the profiler calls otherwise than the inspector is placed by its name."""
    reported: list[tuple[str, float]] = graph.profile_layers()

    def taken(runs: Sequence[Span]) -> _Taken:
        text = graph.layer_information()
        known = {layer.name: layer for layer in structure_of_engine(text, "").layers}
        layers: list[LayerTime] = []
        for name, spans in _spans(reported, runs).items():
            layer = known.get(name)
            nodes = layer.nodes if layer and layer.nodes else tuple(name.split(" + "))
            before = layers[-1].place if layers else None
            layers.append(
                LayerTime(
                    name=name,
                    operator=layer.kind if layer else "",
                    place=placed(place_of_nodes(nodes), before),
                    spans=spans,
                    type=layer.type if layer else "",
                    nodes=nodes,
                )
            )
        return tuple(runs), tuple(layers), json.loads(text, strict=False)

    return taken


def _spans(
    reported: Sequence[tuple[str, float]], runs: Sequence[Span]
) -> dict[str, tuple[Span, ...]]:
    """Layer → its time in each run that counts; TensorRT tells no starts, so they follow each other."""
    each, rest = divmod(len(reported), len(runs) + _WARM_UP)
    if not each or rest:
        raise TargetError(
            f"TensorRT told {len(reported)} times in {len(runs) + _WARM_UP} runs, expected those of "
            "the same layers in each"
        )
    found: dict[str, list[Span]] = {}
    for number, run in enumerate(runs, _WARM_UP):
        own: dict[str, float] = {}
        for name, ms in reported[number * each : (number + 1) * each]:
            own[name] = own.get(name, 0.0) + ms  # two layers of one name
        start = run.start
        for name, ms in own.items():
            found.setdefault(name, []).append(Span(start, ms))
            start += ms
    return {name: tuple(spans) for name, spans in found.items()}
