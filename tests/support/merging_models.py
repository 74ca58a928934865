"""Tiny models that merge tokens: one of each kind of rotary positions, with an adapter and answers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.integration.coverage import CLASSES, PROMPTS, randomized
from tests.support.timms import OLDER, REASON, create_model
from vptkit.backbones.merge_schedule import TokenMerging, merge_schedule
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.backbone.spec_from_timm import spec_from_model

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["ROTARY", "MergingModel", "merging_model", "tiny_model"]

# kind of positions → a model of timm's with them
ROTARY = {
    "axial, pairs": "eva02_tiny_patch14_224",
    "axial, registers": "vit_base_patch16_rope_reg1_gap_256",
    "centered, halves": "vit_7b_patch16_dinov3",
    "mixed": "vit_small_patch16_rope_mixed_ape_224",
}


def tiny_model(name: str, **arguments: Any) -> Any:
    """A timm model of this name with random weights, float64: 16 patches, 4 blocks, 2 heads."""
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, num_classes=0, **{**shape, **arguments})
    # an older timm turns by mixed angles in float32 only, and adds a bias in the wrong place
    if OLDER and (getattr(model, "rope_mixed", False) or hasattr(model.blocks[0], "qkv_bias")):
        pytest.skip(REASON)
    return randomized(model.double().eval().requires_grad_(requires_grad=False))


@dataclass(frozen=True, kw_only=True)
class MergingModel:
    """A model, and an adapter with which it merges tokens.

    Attributes:
        model: of timm, float64.
        spec, weights: of the model.
        adapter: float32 tensors.
        images: uint8 [B, H, W, 3].
    """

    model: Any
    spec: BackboneSpec
    weights: dict[str, NDArray[np.float64]]
    adapter: Adapter
    images: NDArray[np.uint8]

    def reference(self, adapter: Adapter | None = None) -> NDArray[np.float64]:
        """The reference's logits."""
        adapter = adapter or self.adapter
        p = adapter.preprocess
        pixels = (self.images / 255.0 - np.asarray(p.mean)) / np.asarray(p.std)
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        with torch.no_grad():
            return adapter_logits(copy.deepcopy(self.model), adapter, batch).numpy()

    def graph(self, **options: Any) -> onnx.ModelProto:
        """The folded graph; it merges as the adapter does."""
        a = self.adapter
        how = GraphOptions(merging=a.merging, **options)
        return folded_graph(
            self.spec, fold(self.spec, self.weights, a), a.insert, a.pool, a.norm, how
        )

    def run(self, graph: onnx.ModelProto) -> NDArray[np.float32]:
        """Logits of a graph on the images."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(["logits"], {"images": self.images})[0])


def merging_model(
    name: str,
    *,
    merge: int | tuple[int, ...] = 3,
    attention: str = "proportional",
    insert: str = "deep",
    pool: str | None = None,
    arguments: dict[str, Any] | None = None,
) -> MergingModel:
    """A tiny model with random prompts and head.

    Args:
        name: of timm.
        merge: how many tokens each block merges.
        attention: "proportional" or "plain".
        insert: where the prompts are.
        pool: of the adapter; None: the model's.
        arguments: more of `timm.create_model`.
    """
    model = tiny_model(name, **(arguments or {}))
    spec, rng = spec_from_model(model, name), np.random.default_rng(1)
    weights = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    pool = pool or spec.pool
    width = spec.width * (2 if pool == "token+avg" else 1)
    tensors = {"head.weight": rng.standard_normal((CLASSES, width))}
    tensors["head.bias"] = rng.standard_normal(CLASSES)
    sites = {"deep": spec.depth, "shallow": 1, "none": 0}[insert]
    for i in range(sites):
        tensors[f"prompt.{i}"] = rng.standard_normal((PROMPTS, spec.width))
    adapter = Adapter(
        name="random",
        backbone=BackboneRef(name=name, spec=spec, sha256=digest_of_weights(weights)),
        method="vpt",
        insert=insert,  # type: ignore[arg-type]
        prompt_length=PROMPTS if sites else 0,
        pool=pool,  # type: ignore[arg-type]
        norm="after_pool" if spec.final_norm == "fc_norm" else "before_pool",
        labels=tuple(map(str, range(CLASSES))),
        preprocess=Preprocess(input_size=(3, *spec.image_size), mean=(0.5,) * 3, std=(0.25,) * 3),
        tensors={key: value.astype(np.float32) for key, value in tensors.items()},
    )
    merging = TokenMerging(
        schedule=merge_schedule(merge, spec),
        attention=attention,  # type: ignore[arg-type]
    )
    images = rng.integers(0, 256, (2, *spec.image_size, 3)).astype(np.uint8)
    return MergingModel(
        model=model,
        spec=spec,
        weights=weights,
        adapter=replace(adapter, merging=merging if merging.merged else None),
        images=images,
    )
