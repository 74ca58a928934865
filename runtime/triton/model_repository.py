"""The folder that Triton reads: of each bundle one model, whole or not at all.

    NAME/config.pbtxt            inputs, outputs, batching, instances, warm-up
    NAME/labels.txt              of a bundle with one adapter: one label a line
    NAME/1/model.py              names a class of `python_models`
    NAME/1/NAME.vptk/            the bundle; `vptkit bank` changes a bank here, too

With Triton's own ONNX Runtime or TensorRT NAME is an ensemble, of NAME_decode (Python), NAME_graph
and NAME_labels (Python). Every input of a graph must have a batch there, so a bank's tables must be
constants of it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vptkit.atomic_files import atomic_folder
from vptkit.errors import MissingError, TargetError
from vptkit.formats.bundle import LOGITS, open_bundle, read_steadily, write_manifest
from vptkit.runtime.backends.engine_cache import list_engines
from vptkit.runtime.backends.selection import on_nvidia
from vptkit.shown_text import shown

from .batch_answers import SCORES
from .model_config import Batching, Step, Tensor, ensemble_config, model_config
from .model_names import model_names
from .python_models import BACKEND, BUNDLE, DECODE, THREADS, TRUST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vptkit.formats.bundle import Bundle

__all__ = [
    "TRITON_BACKENDS",
    "TritonOptions",
    "instance_kind",
    "open_servable",
    "write_model_repository",
]

TRITON_BACKENDS = ("python", "onnxruntime", "tensorrt")
_ATTEMPTS = 20  # at a bundle that is exported or edited meanwhile
_MODEL_PY = '''"""Written by vptkit serve --triton."""

from vptkit.runtime.triton.python_models import {name} as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_IMAGE = Tensor(name="image", kind="STRING")
_ADAPTER = Tensor(name="adapter", kind="STRING")
_INDEX = Tensor(name="adapter_index", kind="INT32")
_ANSWER = (Tensor(name="label", kind="STRING"), Tensor(name="score", kind="FP32"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonOptions:
    """How models are served.

    Attributes:
        backend: what runs the graph: "python" (a session of ours), or Triton's own "onnxruntime" or
            "tensorrt".
        batching: how requests become batches.
        session_backend: of "python": one of `runtime.backends.selection.BACKENDS`, or "auto".
        decode: how images are decoded (`vptkit.images.image_pixels`).
        threads: of "python": CPU threads of a run and of decoding; 0: all usable cores.
        trust_engines: of "python": as of `open_session`.
    """

    backend: Literal["python", "onnxruntime", "tensorrt"] = "python"
    batching: Batching = field(default_factory=Batching)
    session_backend: str = "auto"
    decode: Literal["exact", "fast"] = "exact"
    threads: int = 0
    trust_engines: bool = False


def write_model_repository(
    bundles: Sequence[Path],
    folder: Path,
    options: TritonOptions | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write a model repository.

    Args:
        bundles: folders NAME.vptk; NAME is the model.
        folder: to be written.
        options: how models are served.
        force: replace a folder that exists.

    Returns:
        Name of each model → what a client needs to know: {"bundle", "layout", "adapters",
        "inputs", "outputs", "backend", "decode"}.

    Raises:
        VptkitError: a name that Triton does not take.
        BundleError: a bundle is damaged.
        TargetError: Triton's own backend cannot run a bundle; the message says what to do.
        MissingError: there is no engine of a bundle.
        OutputError: the folder exists and force is off, or the disk is full.
    """
    options = options or TritonOptions()
    opened, found = open_servable(bundles, options), {}
    with atomic_folder(folder, force=force) as part:
        for name, bundle in opened.items():
            write = partial(_write_model, part, name, bundle.path, options)
            found[name] = read_steadily(bundle.path, write, _ATTEMPTS)
    return found


def open_servable(bundles: Sequence[Path], options: TritonOptions) -> dict[str, Bundle]:
    """Name of each model → its bundle, of which the manifest was read.

    Raises:
        VptkitError, BundleError, TargetError: as of `write_model_repository`.
    """
    opened = {name: open_bundle(path, verify=False) for name, path in model_names(bundles).items()}
    for bundle in opened.values():
        _require_servable(bundle, options)
        bundle.preprocess.reading(options.decode)  # or there is no such way
    return opened


def instance_kind(backend: str, session_backend: str | None) -> str:
    """Where instances run: of Python, a session chooses its device by itself."""
    named = session_backend not in (None, "auto")
    if backend == "tensorrt" or (named and on_nvidia(str(session_backend))):
        return "KIND_GPU"
    return "KIND_AUTO" if backend == "onnxruntime" and session_backend != "cpu" else "KIND_CPU"


def _write_model(part: Path, name: str, path: Path, options: TritonOptions) -> dict[str, Any]:
    """One bundle's models; what an earlier attempt wrote is replaced."""
    bundle = open_bundle(path)
    _require_servable(bundle, options)
    write = _write_session if options.backend == "python" else _write_ensemble
    write(part, name, bundle, options)
    return _described(bundle, options)


def _require_servable(bundle: Bundle, options: TritonOptions) -> None:
    """Refuse what Triton's own backends cannot run."""
    if options.backend == "python":
        return
    place, way = shown(bundle.path), f"--triton-backend {options.backend}"
    if bundle.layout == "bank" and not bundle.constant_tables:
        raise TargetError(
            f"{place}: {way} wants a batch dimension on every input, and this bank's tables are "
            "inputs without one. Export it again with --layout bank --tables constant, or leave "
            "--triton-backend away: the Python backend takes it as it is, and its adapters can be "
            "changed."
        )
    if bundle.batch is not None:
        raise TargetError(
            f"{place}: its graph takes {bundle.batch} images at once, no more and no less, and "
            f"{way} makes batches of any size. Export it again with --batch dynamic."
        )


def _inputs(bundle: Bundle, *, optional: bool) -> list[Tensor]:
    """What clients send to a session: encoded images or pixels, and the adapter of each."""
    height, width = bundle.preprocess.size
    pixels = Tensor(name="images", kind="UINT8", dims=(height, width, 3))
    found = [_IMAGE, pixels, _ADAPTER, _INDEX] if optional else [_IMAGE, _ADAPTER]
    if bundle.layout != "bank":
        found = [tensor for tensor in found if tensor not in (_ADAPTER, _INDEX)]
    if not optional:
        return found
    return [Tensor(name=t.name, kind=t.kind, dims=t.dims, optional=True) for t in found]


def _graph_outputs(bundle: Bundle, labels: str | None = None) -> list[Tensor]:
    return [
        Tensor(
            name=value["name"],
            kind="FP32",
            dims=(int(value["shape"][1]),),
            labels=labels if value["name"] == LOGITS else None,
        )
        for value in bundle.manifest["outputs"]
    ]


def _outputs(bundle: Bundle) -> list[Tensor]:
    """What clients get."""
    labels = "labels.txt" if bundle.layout == "baked" else None
    answer = _ANSWER if LOGITS in bundle.outputs else ()
    return [*_graph_outputs(bundle, labels), *answer]


def _write_session(part: Path, name: str, bundle: Bundle, options: TritonOptions) -> None:
    """A model that runs on a session of ours."""
    version = _model_folder(part, name)
    _copy_bundle(bundle, version / f"{name}.vptk")
    (version / "model.py").write_text(_MODEL_PY.format(name="SessionModel"), encoding="ascii")
    inputs = _inputs(bundle, optional=True)
    config = model_config(
        {"backend": "python"},
        inputs,
        _outputs(bundle),
        options.batching,
        warmed=[tensor for tensor in inputs if tensor.name in ("images", "adapter_index")],
        parameters={
            BUNDLE: f"{name}.vptk",
            BACKEND: options.session_backend,
            THREADS: str(options.threads),
            TRUST: "yes" if options.trust_engines else "no",
            DECODE: options.decode,
        },
    )
    _write_config(part / name, bundle, config)


def _write_ensemble(part: Path, name: str, bundle: Bundle, options: TritonOptions) -> None:
    """Three models, and the one that joins them."""
    graph_inputs = _graph_inputs(bundle)
    decoded = [*graph_inputs[:1], *([_INDEX] if bundle.layout == "bank" else [])]
    inputs, outputs = _inputs(bundle, optional=False), _outputs(bundle)
    _write_step(part, f"{name}_decode", "DecodingModel", bundle, (inputs, decoded), options)
    _write_graph(part, f"{name}_graph", bundle, options)
    labelling = LOGITS in bundle.outputs
    if labelling:
        outputs_of_graph = {tensor.name: tensor for tensor in _graph_outputs(bundle)}
        logits = outputs_of_graph[LOGITS]
        scores = [outputs_of_graph[SCORES]] if SCORES in outputs_of_graph else []
        takes, gives = [logits, *scores, *decoded[1:]], [logits, *_ANSWER]
        _write_step(part, f"{name}_labels", "LabellingModel", bundle, (takes, gives), options)
    steps = _steps(name, bundle, inputs, labelling=labelling)
    _model_folder(part, name)  # an ensemble has no file, but a version
    config = ensemble_config(inputs, outputs, steps, options.batching.max_batch)
    _write_config(part / name, bundle, config)


def _steps(name: str, bundle: Bundle, inputs: Sequence[Tensor], *, labelling: bool) -> list[Step]:
    bank = {"adapter_index": "decoded_adapter"} if bundle.layout == "bank" else {}
    decode = Step(
        model=f"{name}_decode",
        inputs={tensor.name: tensor.name for tensor in inputs},
        outputs={bundle.input: "decoded", **bank},
    )
    taken = dict(zip(bundle.fed, ["decoded", *bank.values()], strict=True))
    raw = {out: "graph_logits" if out == LOGITS else out for out in bundle.outputs}
    graph = Step(model=f"{name}_graph", inputs=taken, outputs=raw)
    if not labelling:
        return [decode, graph]
    scores = {SCORES: SCORES} if SCORES in bundle.outputs else {}
    labels = Step(
        model=f"{name}_labels",
        inputs={LOGITS: "graph_logits", **scores, **bank},
        outputs={LOGITS: LOGITS, "label": "label", "score": "score"},
    )
    return [decode, graph, labels]


def _graph_inputs(bundle: Bundle) -> list[Tensor]:
    """What the bare graph takes, as Triton writes it."""
    kinds = {"uint8": "UINT8", "float32": "FP32", "int32": "INT32"}
    values = [value for value in bundle.manifest["inputs"] if value["name"] in bundle.fed]
    return [
        Tensor(
            name=value["name"],
            kind=kinds[value["dtype"]],
            dims=tuple(int(size) for size in value["shape"][1:]),
        )
        for value in values
    ]


def _write_step(
    part: Path,
    name: str,
    model: str,
    bundle: Bundle,
    tensors: tuple[Sequence[Tensor], Sequence[Tensor]],
    options: TritonOptions,
) -> None:
    """A step of an ensemble in Python; of the bundle it needs the manifest."""
    version = _model_folder(part, name)
    (version / "model.py").write_text(_MODEL_PY.format(name=model), encoding="ascii")
    (version / "manifest.vptk").mkdir()
    _copy_manifest(bundle, version / "manifest.vptk")
    batching = Batching(
        max_batch=options.batching.max_batch,
        delay_us=0,  # images wait for others once, before the graph
        queue=options.batching.queue,
        timeout_us=options.batching.timeout_us,
        instances=options.batching.instances,
        kind="KIND_CPU",
    )
    config = model_config(
        {"backend": "python"},
        *tensors,
        batching,
        parameters={
            BUNDLE: "manifest.vptk",
            THREADS: str(options.threads),
            DECODE: options.decode,
        },
    )
    (part / name / "config.pbtxt").write_text(config, encoding="ascii")


def _write_graph(part: Path, name: str, bundle: Bundle, options: TritonOptions) -> None:
    """The bare graph, for Triton's own ONNX Runtime or TensorRT."""
    version, batching = _model_folder(part, name), options.batching
    if options.backend == "onnxruntime":
        runs_on = {"backend": "onnxruntime"}
        for file in bundle.graph_files:
            _copy_file(bundle, file, version / file)
    else:
        runs_on = {"platform": "tensorrt_plan"}
        _copy_engine(bundle, version / "model.plan", batching.max_batch, options)
    threads = {"intra_op_thread_count": str(options.threads)} if options.threads else {}
    inputs = _graph_inputs(bundle)
    config = model_config(
        runs_on,
        inputs,
        _graph_outputs(bundle),
        batching,
        warmed=inputs,
        parameters=threads if options.backend == "onnxruntime" else {},
    )
    (part / name / "config.pbtxt").write_text(config, encoding="ascii")


def _copy_engine(bundle: Bundle, place: Path, max_batch: int, options: TritonOptions) -> None:
    """The engine of the graph that was built or asked for last.

    Raises:
        MissingError: there is none, or it may be somebody else's work.
        TargetError: it takes fewer images than a batch may have.
    """
    graph = [e for e in list_engines(bundle) if e.record.get("library") == "tensorrt"]
    if not graph:
        raise MissingError(
            f"{shown(bundle.path)}: no engine of TensorRT. Build one with the TensorRT version of "
            f"the server, on its GPU: vptkit build {shown(bundle.path)}"
        )
    most = graph[0].record["options"]["profile"].get(bundle.input, [[0], [0], [max_batch]])[2][0]
    if most < max_batch:
        raise TargetError(
            f"{graph[0].path}: takes {most} images at most, less than --max-batch {max_batch}"
        )
    with graph[0].open_plan(trust=options.trust_engines) as source, place.open("wb") as target:
        shutil.copyfileobj(source, target)


def _model_folder(part: Path, name: str) -> Path:
    """A model's folder with its first version, which is returned."""
    shutil.rmtree(part / name, ignore_errors=True)
    version = part / name / "1"
    version.mkdir(parents=True)
    return version


def _write_config(folder: Path, bundle: Bundle, config: str) -> None:
    (folder / "config.pbtxt").write_text(config, encoding="ascii")
    if bundle.layout == "baked" and LOGITS in bundle.outputs:
        lines = (" ".join(label.split()) for label in bundle.labels)
        text = "".join(f"{line}\n" for line in lines)
        (folder / "labels.txt").write_text(text, encoding="utf-8")


def _copy_bundle(bundle: Bundle, place: Path) -> None:
    """All files that the manifest lists, each compared with its digest; no engines."""
    for name in bundle.manifest["files"]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        _copy_file(bundle, name, place / name)
    _copy_manifest(bundle, place)


def _copy_file(bundle: Bundle, name: str, place: Path) -> None:
    with bundle.opened(name) as source, place.open("wb") as target:
        shutil.copyfileobj(source, target)


def _copy_manifest(bundle: Bundle, place: Path) -> None:
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    write_manifest(place, fields, bundle.manifest["files"])


def _described(bundle: Bundle, options: TritonOptions) -> dict[str, Any]:
    inputs = _inputs(bundle, optional=options.backend == "python")

    def shapes(tensors: Sequence[Tensor]) -> dict[str, Any]:
        return {t.name: {"datatype": _wire(t), "shape": [-1, *(t.dims or (1,))]} for t in tensors}

    return {
        "bundle": str(bundle.path),
        "layout": bundle.layout,
        "backend": options.backend,
        "decode": options.decode,
        "adapters": list(bundle.adapter_names),
        "inputs": shapes(inputs),
        "outputs": shapes(_outputs(bundle)),
    }


def _wire(tensor: Tensor) -> str:
    """The type as the protocol calls it."""
    return "BYTES" if tensor.kind == "STRING" else tensor.kind
