"""What an adapter is compared with: the bare backbone and the unfolded graph.

Both are written for the geometry of a given bundle. Latency does not depend on what the weights
are, so they are random numbers of ordinary size, and the baselines need no weights file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.errors import BundleError
from vptkit.export.analysis.macs import learned_macs, unfolded_macs
from vptkit.export.analysis.memory_estimate import memory_of
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.adapter import THRESHOLDS, Adapter, BackboneRef, parse_adapter
from vptkit.formats.backbone_weights import tensor_shapes
from vptkit.formats.bundle import ADAPTER, adapter_entry, open_bundle, write_manifest
from vptkit.formats.manifest_schema import FEATURES, LOGITS, MULTILABEL
from vptkit.formats.pooling import head_inputs

from .export_bundle import write_graph
from .export_options import ExportOptions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.bundle import Bundle

__all__ = ["export_baselines", "random_weights"]

_NUMBERS = 1 << 24  # that may always be made: 64 MB
_RATIO = 8  # numbers in a byte of the graph: of int8 one, and an absorbed last block is left out


def random_weights(spec: BackboneSpec, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random tensors for a backbone: matrices of unit gain, norms near one, biases small."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(spec).items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        value = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan_in))
        if len(shape) == 1:
            value = value * np.float32(0.1)
            value += np.float32(name.endswith(("norm1.weight", "norm2.weight", "norm.weight")))
        tensors[name] = value
    return tensors


def _bare(bank: Bundle) -> Adapter:
    """A linear probe with as many classes as a bank has room for."""
    entry, backbone = bank.manifest["adapters"][0], bank.manifest["backbone"]
    classes = bank.manifest["outputs"][0]["shape"][1]
    inputs = head_inputs(entry["pool"], bank.spec.width)
    several = bank.task == MULTILABEL
    return Adapter(
        name=bank.name,
        backbone=BackboneRef(name=backbone["name"], spec=bank.spec, sha256=backbone["sha256"]),
        method="linear",
        insert="none",
        prompt_length=0,
        pool=entry["pool"],
        norm=entry["norm"],
        labels=tuple(f"class {i}" for i in range(classes)),
        preprocess=bank.preprocess,
        tensors={
            "head.weight": np.zeros((classes, inputs), np.float32),
            "head.bias": np.zeros(classes, np.float32),
            **({THRESHOLDS: np.full(classes, 0.5, np.float32)} if several else {}),
        },
        task=bank.task,
    )


def _entry(adapter: Adapter, name: str) -> dict[str, Any]:
    """What a baseline's manifest says of its adapter: labels, and what decides between them."""
    whole = adapter_entry(adapter) | {"name": name}
    return {key: value for key, value in whole.items() if key in ("name", "labels", "thresholds")}


def _output(opened: Bundle) -> Literal["logits", "features", "both"]:
    """The option by which a graph has the outputs of a bundle; scores come with the logits."""
    if LOGITS not in opened.outputs:
        return "features"
    return "both" if FEATURES in opened.outputs else "logits"


def _require_size(opened: Bundle) -> None:
    """Refuse a description of a backbone much larger than the graph that is said to hold it.

    Raises:
        BundleError: its random weights would take the memory of another backbone.
    """
    numbers = sum(math.prod(shape) for shape in tensor_shapes(opened.spec).values())
    size = sum((opened.path / name).lstat().st_size for name in opened.graph_files)
    if numbers > max(_NUMBERS, _RATIO * size):
        raise BundleError(
            f"{opened.path}: the manifest's backbone has {numbers} numbers, more than its graph of "
            f"{size} bytes can hold. Export the bundle again."
        )


def _lowering(opened: Bundle) -> Lowering:
    if opened.precision == "bf16":
        return Lowering(precision="bf16")
    on_gpu = (opened.manifest["lowering"] or {}).get("target") == "tensorrt"
    return Lowering(precision="fp16" if on_gpu or opened.precision == "fp16" else "fp32")


def export_baselines(bundle: Path, folder: Path) -> dict[str, Path]:
    """Write the baselines of a bundle, with its input, batch and precision.

    What is quantized is compared with the type that its other operations have: quantizing takes
    images.

    Args:
        bundle: a bundle.
        folder: an existing folder to write into.

    Returns:
        Name → path of a bundle: the backbone without adapter, unfolded as exporters write it; and
        the adapter with prompts as tokens, unfolded (left out if the adapter has no prompts: that
        would be the same graph).
    """
    opened = open_bundle(bundle, verify=False)
    spec = opened.spec
    if opened.layout == "bank":
        adapter = _bare(opened)
    else:
        adapter = parse_adapter(opened.read(ADAPTER), bundle / ADAPTER)
    options = ExportOptions(
        fold="none",
        input="uint8" if opened.input == "images" else "float32",
        batch=opened.batch,
        lowering=_lowering(opened),
        output=_output(opened),
        normalize_features=opened.normalized,
    )
    _require_size(opened)
    weights: dict[str, NDArray[Any]] = dict(random_weights(spec))
    chosen = {"backbone (no adapter)": adapter.without_prompts()}
    if adapter.insert != "none" or adapter.learned_counts():
        chosen["unfolded"] = adapter
    paths = {}
    for number, (name, one) in enumerate(chosen.items()):
        path = folder / f"baseline-{number}.vptk"
        path.mkdir()
        lowered, _ = write_graph(path, one, spec, weights, options)
        macs = unfolded_macs(spec, one.prompt_length)
        macs += learned_macs(spec, [spec.tokens + one.prompt_length], one.learned_counts())
        bare = unfolded_macs(spec, 0)
        manifest = {
            **opened.manifest,
            "name": name,
            "layout": "baked",
            "adapters": [_entry(one, name)],
            "inputs": opened.manifest["inputs"][:1],
            "fold": "none",
            "folds": [],
            "macs": {"backbone": bare, "unfolded": macs, "graph": macs},
            "memory": memory_of(lowered.model),
            "precision": options.lowering.precision,
            "lowering": lowered.plan,
            "gate": None,
            "parity": None,
        }
        for key in ("format", "files", "merging"):
            manifest.pop(key, None)
        write_manifest(path, manifest)
        paths[name] = path
    return paths
