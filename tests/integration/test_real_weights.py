"""Both real Vision Transformers with fifty deep prompts, on real images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from tests.support.marks import quick_if
from tests.support.tolerances import CLEARLY, PARITY_REAL_WEIGHTS, largest_difference
from vptkit.backbones.merge_schedule import TokenMerging, merge_schedule
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.adapter import Adapter, BackboneRef, read_adapter, write_adapter
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.pooling import head_inputs
from vptkit.images.image_file import open_image
from vptkit.images.preprocess import prepare

if TYPE_CHECKING:
    from pathlib import Path

TI = "vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", {}
MODELS = {
    "ViT-Ti/16": (*TI, "token", "before_pool"),
    "ViT-Ti/16, class and mean": (*TI, "token+avg", "before_pool"),
    "ViT-S/14": (
        "vit_small_patch14_dinov2",
        "vit_small_patch14_dinov2.saliency",
        {"img_size": 224},
        "avg_prompts",
        "after_pool",
    ),
}
PROMPTS = 50


@pytest.fixture(scope="module", params=quick_if("ViT-Ti/16".__eq__, MODELS))
def real(request, shared, tmp_path_factory) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Adapter file, weights file, images, the reference's logits."""
    from vptkit.tune.backbone.reference import reference_logits
    from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model
    from vptkit.tune.backbone.timm_backbone import create_backbone, preprocess_of

    name, folder, args, pool, norm = MODELS[request.param]
    weights = shared / "weights" / folder / "model.safetensors"
    model = create_backbone(name, args, weights)
    spec, rng = spec_from_model(model), np.random.default_rng(0)
    inputs = head_inputs(pool, spec.width)
    tensors: dict[str, Any] = {
        "head.weight": rng.standard_normal((10, inputs)) / np.sqrt(inputs),
        "head.bias": rng.standard_normal(10),
    }
    for i in range(spec.depth):  # bursty, as trained bilinear prompts are (methods.md 1.2)
        tensors[f"prompt.{i}.a"] = rng.laplace(size=(PROMPTS, 25)) * 2
        tensors[f"prompt.{i}.b"] = rng.laplace(size=(spec.width, 25))
    adapter = Adapter(
        name="real",
        backbone=BackboneRef(
            name=name, args=args, spec=spec, sha256=digest_of_weights(weights_from_model(model))
        ),
        method="bpt",
        insert="deep",
        prompt_length=PROMPTS,
        pool=pool,
        norm=norm,
        labels=tuple(f"class {i}" for i in range(10)),
        preprocess=preprocess_of(model),
        tensors={k: np.asarray(v, dtype=np.float32) for k, v in tensors.items()},
    )
    path = tmp_path_factory.mktemp("real") / "a.safetensors"
    write_adapter(path, adapter)
    found = sorted((shared / "data").glob("*/test/*/*.jp*g"))
    images = np.stack(
        [prepare(open_image(file), adapter.preprocess) for file in found[:: len(found) // 3][:3]]
    )
    assert images.std() > 20
    return path, weights, images, reference_logits(path, weights, images)


def answers(real: Any, out: Path, adapter: Path, **options: Any) -> np.ndarray:
    from vptkit.tune.backbone.timm_backbone import described_weights

    _, weights, images, _ = real
    export(
        adapter,
        out,
        weights=weights,
        options=ExportOptions(**options),
        from_timm=lambda one: described_weights(one, weights),
    )
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize(
    "options",
    [{"last_block": "absorbed"}, {"last_block": "query", "batch": 3}, {"fold": "none"}],
    ids=["absorbed", "query", "unfolded"],
)
def test_the_graph_says_what_the_reference_says(real, tmp_path, options):
    found = answers(real, tmp_path / "a.vptk", real[0], **options)
    assert largest_difference(found, real[3]) <= PARITY_REAL_WEIGHTS


def test_merged_tokens(real, tmp_path):
    """On real images the graph chooses the pairs that the reference chooses.

    But where two similarities differ in their last bits, both being float32: of 120 images of a ViT-Ti
    on none, of the three here of a ViT-S/14, whose prompts are far larger than its tokens, on one.
    """
    from vptkit.tune.backbone.reference import reference_logits

    adapter = read_adapter(real[0])
    merging = TokenMerging(schedule=merge_schedule(12, adapter.backbone.spec))
    path = tmp_path / "merged.safetensors"
    write_adapter(path, replace(adapter, merging=merging))
    expected = reference_logits(path, real[1], real[2])
    found = answers(real, tmp_path / "a.vptk", path)
    apart = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert (apart <= PARITY_REAL_WEIGHTS).sum() >= 2
    assert largest_difference(found, real[3]) > CLEARLY * PARITY_REAL_WEIGHTS


def test_swapped_prompts_are_noticed(real, tmp_path):
    """The broken twin."""
    adapter = read_adapter(real[0])
    names = {"prompt.3.a": "prompt.4.a", "prompt.4.a": "prompt.3.a"}
    tensors = {names.get(k, k): v for k, v in adapter.tensors.items()}
    write_adapter(tmp_path / "swapped.safetensors", replace(adapter, tensors=tensors))
    found = answers(real, tmp_path / "a.vptk", tmp_path / "swapped.safetensors")
    assert largest_difference(found, real[3]) > CLEARLY * PARITY_REAL_WEIGHTS
