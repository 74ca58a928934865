"""`export`: adapter and weights in, a bundle out; the steps in order, and the manifest."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

import vptkit
from vptkit.atomic_files import atomic_folder
from vptkit.errors import MissingExtraError
from vptkit.formats.adapter import read_adapter, require_backbone, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights, read_weights
from vptkit.formats.bundle import ADAPTER, GOLDEN, MODEL, adapter_entry, write_manifest
from vptkit.formats.tensor_file import write_tensors

from .fold import fold
from .graph import folded_graph
from .liveness import memory_of
from .lower import Lowering, lower
from .macs import folded_macs, unfolded_macs
from .model_file import write_model
from .options import GraphOptions, absorbable
from .unfolded import unfolded_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    from .evidence import Evidence
    from .lower import Lowered
    from .options import LastBlock

__all__ = ["ExportOptions", "export", "write_graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to write.

    Attributes:
        input: see `GraphOptions`.
        batch: a fixed batch size, or None for any.
        fold: "all", or "none" for the graph that others would export.
        last_block: see `GraphOptions`; "auto" is "absorbed" for a CPU (docs/benchmarks.md) and
            "query" for TensorRT (keeps attention fused).
        lowering: precision and what belongs to it.
    """

    input: Literal["uint8", "float32"] = "uint8"
    batch: int | None = None
    fold: Literal["all", "none"] = "all"
    last_block: LastBlock | Literal["auto"] = "auto"
    lowering: Lowering = field(default_factory=Lowering)

    def graph(self) -> GraphOptions:
        """For the graph writers."""
        on_cpu = self.lowering.resolved_target == "cpu"
        best: LastBlock = "absorbed" if on_cpu else "query"
        last = best if self.last_block == "auto" else self.last_block
        # ONNX Runtime fuses an int8 product only if nothing else reads its input; TensorRT keeps
        # one with scales by channel in int8 only if queries, keys and values are apart.
        quantized = self.lowering.precision in ("int8", "fp8")
        qkv: Literal["separate", "fused"] = "fused" if on_cpu == quantized else "separate"
        return GraphOptions(input=self.input, batch=self.batch, last_block=last, qkv=qkv)


def export(
    adapter_path: Path,
    output: Path,
    *,
    weights: Path | None = None,
    options: ExportOptions | None = None,
    force: bool = False,
    from_timm: Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]] | None = None,
    verify: Callable[[Path], dict[str, Any] | None] | None = None,
    evidence: Callable[[Adapter], Evidence] | None = None,
) -> dict[str, Any]:
    """Compile an adapter into a bundle. Same input, same bytes.

    Args:
        adapter_path: an adapter file.
        output: the bundle's folder; appears whole or not at all.
        weights: the backbone's safetensors file. If it holds the tensors as the adapter's spec
            names them, torch is not needed.
        options: what to write.
        force: replace an existing bundle.
        from_timm: asked for spec and weights where the file alone does not do.
        verify: called with the finished folder before it is moved into place; its figures go into
            the manifest's "parity", and an exception of it discards the bundle.
        evidence: asked for real images and a runner, for precisions below fp32.

    Returns:
        The manifest.

    Raises:
        AdapterError, BackboneError: bad input, or another backbone than the one tuned.
        OutputError: the output exists, or the disk is full.
        TargetError: the options ask for something this backbone does not do.
        GateError: the precision's gate does not hold, or raised by `verify`.
    """
    options = options or ExportOptions()
    adapter = read_adapter(adapter_path)
    with atomic_folder(output, force=force) as folder:
        spec, tensors = _backbone(adapter, weights, from_timm)
        known = None if evidence is None else evidence(adapter)
        lowered = write_graph(folder, adapter, spec, tensors, options, known)
        write_adapter(folder / ADAPTER, adapter)
        golden = adapter.golden()
        if golden is not None:
            write_tensors(folder / GOLDEN, {"images": golden[0], "logits": golden[1]})
        manifest = _manifest(adapter, spec, options, lowered)
        files = write_manifest(folder, manifest)
        if verify is not None:
            manifest["parity"] = verify(folder)
            write_manifest(folder, manifest, files)
    return manifest


def write_graph(
    folder: Path,
    adapter: Adapter,
    spec: BackboneSpec,
    tensors: Mapping[str, NDArray[Any]],
    options: ExportOptions,
    evidence: Evidence | None = None,
) -> Lowered:
    """Write model.onnx in its precision, and say how it came to be.

    Raises:
        VptkitError, GateError: see `lower.lower`.
    """
    if options.fold == "all":
        folded = fold(spec, tensors, adapter)
        model = folded_graph(
            spec, folded, adapter.insert, adapter.pool, adapter.norm, options.graph()
        )
    else:
        model = unfolded_graph(spec, tensors, adapter, options.graph())
    lowered = lower(adapter.name, model, options.lowering, evidence)
    write_model(lowered.model, folder / MODEL)
    return lowered


def _backbone(
    adapter: Adapter,
    path: Path | None,
    from_timm: Callable[[Adapter], tuple[BackboneSpec, Mapping[str, NDArray[Any]]]] | None,
) -> tuple[BackboneSpec, Mapping[str, NDArray[Any]]]:
    """Spec and weights, the digest compared: from the file alone if it will do."""
    spec = adapter.backbone.spec
    tensors = read_weights(path, spec) if path is not None and spec is not None else None
    if spec is None or tensors is None:
        if from_timm is None:
            raise MissingExtraError("timm", "tune", "reading this backbone")
        return from_timm(adapter)
    require_backbone(adapter.backbone, digest_of_weights(tensors), path)
    return spec, tensors


def _manifest(
    adapter: Adapter, spec: BackboneSpec, options: ExportOptions, lowered: Lowered
) -> dict[str, Any]:
    height, width = spec.image_size
    batch: int | str = options.batch or "dynamic"
    source = (
        {"name": "images", "dtype": "uint8", "shape": [batch, height, width, 3]}
        if options.input == "uint8"
        else {"name": "pixels", "dtype": "float32", "shape": [batch, 3, height, width]}
    )
    return {
        "name": adapter.name,
        "backbone": {**adapter.backbone.to_json(), "spec": spec.to_json()},
        "adapters": [adapter_entry(adapter)],
        "preprocess": adapter.preprocess.to_json(),
        "inputs": [source],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [batch, len(adapter.labels)]}],
        "precision": options.lowering.precision,
        "lowering": lowered.plan,
        "gate": lowered.gate,
        "layout": "baked",
        "batch": batch,
        "fold": options.fold,
        "folds": _folds(adapter, spec, options) if options.fold == "all" else [],
        "macs": _macs(adapter, spec, options),
        "memory": memory_of(lowered.model),
        "parity": None,
        "versions": {
            "vptkit": vptkit.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "opset": lowered.model.opset_import[0].version,
            "ir": lowered.model.ir_version,
        },
    }


def _folds(adapter: Adapter, spec: BackboneSpec, options: ExportOptions) -> list[str]:
    """The folds that were applied, in words."""
    last = options.graph().last_block
    last = "query" if last == "absorbed" and not absorbable(spec) else last
    shared_keys = spec.rotary is None and not spec.qk_norm
    rules = {
        "prompt factors multiplied": any(n.endswith(".a") for n in adapter.tensors),
        "deep prompts → constant key/value prefixes": adapter.insert == "deep",
        "shallow prompts → constant queries, keys and values in block 0": (
            adapter.insert == "shallow"
        ),
        "LayerNorm affine → next linear": spec.block != "post",
        "key bias dropped": spec.qkv_bias and shared_keys,
        "value bias → projection": spec.qkv_bias and not spec.attention_norm,
        "attention scale → query": True,
        "LayerScale → projection and MLP": spec.layer_scale,
        "inner norms' affine → projection and MLP": spec.attention_norm or spec.mlp_norm,
        "rotary embedding → constants, pairs reordered": spec.rotary is not None,
        "relative positions → one table": spec.relative is not None,
        "latent query of the pooling → its keys": adapter.pool == "map",
        "final norm affine → head": spec.final_norm is not None and adapter.pool != "map",
        "pixel scale, mean and std → patch embedding": options.input == "uint8",
        "prefix tokens and their position → constant rows": spec.prefix > 0,
        f"last block: one query ({last})": adapter.pool == "token" and last != "full",
        "sum of prompts kept apart in the mean": (
            adapter.pool == "avg_prompts"
            and adapter.norm == "after_pool"
            and (adapter.insert == "deep" or (adapter.insert == "shallow" and spec.depth == 1))
        ),
    }
    return [name for name, applies in rules.items() if applies]


def _macs(adapter: Adapter, spec: BackboneSpec, options: ExportOptions) -> dict[str, int]:
    """Multiply-accumulates of the blocks for one image: promptless, unfolded, this graph."""
    m, last = adapter.prompt_length, options.graph().last_block
    unfolded = unfolded_macs(spec, m)
    folded = folded_macs(spec, m, adapter.insert, adapter.pool, last)
    return {
        "backbone": unfolded_macs(spec, 0),
        "unfolded": unfolded,
        "graph": folded if options.fold == "all" else unfolded,
    }
