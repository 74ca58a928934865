"""A baked bundle's manifest: geometry, folds, multiply-accumulates, precision, versions."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

import vptkit
from vptkit.export.analysis.macs import learned_macs, unfolded_macs
from vptkit.export.analysis.memory_estimate import memory_of
from vptkit.export.fold.last_block import absorbable
from vptkit.formats.bundle import adapter_entry, task_entry
from vptkit.formats.manifest_schema import FEATURES, LOGITS, SCORES, outputs_of
from vptkit.formats.pooling import head_inputs

from .merge_plan import graph_macs, merging_entry

if TYPE_CHECKING:
    from vptkit.export.precision.lowering import Lowered
    from vptkit.formats.adapter import Adapter
    from vptkit.formats.backbone_spec import BackboneSpec

    from .export_options import ExportOptions

__all__ = ["manifest_of"]


def manifest_of(
    adapter: Adapter,
    spec: BackboneSpec,
    options: ExportOptions,
    lowered: Lowered,
    merge_gate: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a baked bundle says of itself; parity is filled in later.

    Args:
        adapter: as it was tuned.
        spec: of its backbone.
        options: with `merging` decided.
        lowered: the graph.
        merge_gate: of `judge_merging`.
    """
    height, width = spec.image_size
    batch: int | str = options.batch or "dynamic"
    source = (
        {"name": "images", "dtype": "uint8", "shape": [batch, height, width, 3]}
        if options.input == "uint8"
        else {"name": "pixels", "dtype": "float32", "shape": [batch, 3, height, width]}
    )
    merging = merging_entry(options, adapter, merge_gate)
    return {
        "name": adapter.name,
        **task_entry(adapter.task),
        "backbone": {**adapter.backbone.to_json(), "spec": spec.to_json()},
        "adapters": [adapter_entry(adapter)],
        "preprocess": adapter.preprocess.to_json(),
        "inputs": [source],
        "outputs": _outputs(adapter, spec, options, batch),
        "precision": options.lowering.precision,
        "lowering": lowered.plan,
        "gate": lowered.gate,
        "layout": "baked",
        "batch": batch,
        "fold": options.fold,
        "folds": _folds(adapter, spec, options) if options.fold == "all" else [],
        **({} if merging is None else {"merging": merging}),
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


def _outputs(
    adapter: Adapter, spec: BackboneSpec, options: ExportOptions, batch: int | str
) -> list[dict[str, Any]]:
    """Name, type and shape of each output; of features also whether their length is one."""
    found: dict[str, dict[str, Any]] = {
        LOGITS: {"shape": [batch, len(adapter.labels)]},
        SCORES: {"shape": [batch, len(adapter.labels)]},
        FEATURES: {
            "shape": [batch, head_inputs(adapter.pool, spec.width)],
            "normalized": options.normalize_features,
        },
    }
    names = outputs_of(options.outputs, adapter.task)
    return [{"name": name, "dtype": "float32", **found[name]} for name in names]


def _folds(adapter: Adapter, spec: BackboneSpec, options: ExportOptions) -> list[str]:
    """The folds that were applied, in words."""
    last = options.graph().last_block
    last = "query" if last == "absorbed" and not absorbable(spec) else last
    shared_keys = spec.rotary is None and not spec.qk_norm
    rules = {
        "prompt factors multiplied": any(
            n.startswith("prompt.") and n.endswith(".a") for n in adapter.tensors
        ),
        "weight deltas → weights": bool(adapter.weight_deltas()),
        "deep prompts → constant key/value prefixes": adapter.insert == "deep",
        "learned keys and values → constant key/value prefixes": bool(adapter.learned_counts()),
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
        "final norm affine → head": (
            spec.final_norm is not None and adapter.pool != "map" and options.output == LOGITS
        ),
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
    """Multiply-accumulates of the blocks for one image: promptless, unfolded, this graph.

    And of a graph that merges tokens: what it would need without.
    """
    m = adapter.prompt_length
    unfolded = unfolded_macs(spec, m)
    unfolded += learned_macs(spec, [spec.tokens + m], adapter.learned_counts())
    folded = graph_macs(options, adapter, spec, options.merging)
    found = {
        "backbone": unfolded_macs(spec, 0),
        "unfolded": unfolded,
        "graph": folded if options.fold == "all" else unfolded,
    }
    if options.merging is not None:
        found["unmerged"] = graph_macs(options, adapter, spec, None)
    return found
