"""Every isotropic ViT of timm, exported small and compared with the reference.

`python -m tests.integration.coverage docs/coverage.md` writes the table; `test_coverage` holds it.
Depth, width and image are reduced, the structure is each name's own; no weight keeps its initial 0
or 1.
"""

from __future__ import annotations

import collections
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch

from tests.support.timms import NO_VALUES, OLDER, REASON, create_model
from tests.support.tolerances import largest_difference
from vptkit.errors import BackboneError
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.formats.backbone_weights import digest_of_weights
from vptkit.formats.tensor_file import write_tensors
from vptkit.images.preprocess import Preprocess
from vptkit.progress import progress
from vptkit.tune.backbone.reference import adapter_logits
from vptkit.tune.backbone.spec_from_timm import spec_from_model

if TYPE_CHECKING:
    from vptkit.formats.backbone_spec import BackboneSpec

MODULES = ("vision_transformer", "deit", "eva", "beit", "vision_transformer_relpos")
CLASSES, PROMPTS, BATCH = 5, 3, 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """One name: the largest relative difference, or why it is refused."""

    module: str
    name: str
    differences: dict[str, float]
    refused: str | None = None


def names() -> list[tuple[str, str]]:
    """(timm module, model name) of all that are walked."""
    return [(module, name) for module in MODULES for name in timm.list_models(module=module)]


def small_model(name: str) -> Any:
    """A timm model of this name, two blocks deep and two heads wide, with random weights."""
    with NO_VALUES:
        args = {"num_kv_heads": 1} if "sapiens2" in name else {}
        whole = create_model(name, num_classes=0, depth=1, **args)
    patch = whole.patch_embed.patch_size
    heads = _heads(whole.blocks[0])
    args = {
        "depth": 2,
        "num_heads": 2,
        "embed_dim": 2 * whole.embed_dim // heads,
        "img_size": (3 * patch[0], 4 * patch[1]),
    }
    if "sapiens2" in name:
        args["num_kv_heads"] = (1, 2)
    if hasattr(getattr(whole, "attn_pool", None), "num_heads"):
        args["attn_pool_num_heads"] = 2
        if type(whole).__name__ == "VisionTransformer":
            del args["attn_pool_num_heads"]
    with torch.random.fork_rng():
        model = create_model(name, num_classes=0, **args)
    # an older timm turns by mixed angles in float32 only, and adds a bias in the wrong place
    wrong = getattr(model, "rope_mixed", False) or hasattr(model.blocks[0], "qkv_bias")
    if OLDER and wrong:
        pytest.skip(REASON)
    return randomized(model.double().eval().requires_grad_(requires_grad=False))


def _heads(block: Any) -> int:
    if hasattr(block, "attns"):
        return int(block.attns[0].attn.num_heads)
    return int(block.attn.num_heads if hasattr(block, "attn") else block.num_heads)


def randomized(model: Any, seed: int = 0) -> Any:
    """Move every parameter off its initial value: a forgotten one shall be seen."""
    rng = np.random.default_rng(seed)
    for value in model.state_dict().values():
        size = 1.5 / np.sqrt(value[0].numel()) if value.ndim > 1 else 0.3
        value.add_(torch.from_numpy(size * rng.standard_normal(tuple(value.shape))))
    return model


def written_model(folder: Path, name: str) -> tuple[Any, BackboneSpec, dict[str, Any], Adapter]:
    """A small model in float32, its weights in `folder`: (model, spec, weights, a deep adapter)."""
    model = small_model(name)
    spec = spec_from_model(model, name)
    weights = {k: v.numpy().astype(np.float32) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    write_tensors(folder / "weights.safetensors", weights)
    adapter = adapter_for(name, model, spec, "deep")
    backbone = replace(adapter.backbone, sha256=digest_of_weights(weights))
    tensors = {k: v.astype(np.float32) for k, v in adapter.tensors.items()}
    return model, spec, weights, replace(adapter, backbone=backbone, tensors=tensors)


def adapter_for(name: str, model: Any, spec: BackboneSpec, insert: str) -> Adapter:
    """A random adapter that pools as the model does, with some tuned norms."""
    rng = np.random.default_rng(1)
    tensors = {
        "head.weight": rng.standard_normal((CLASSES, spec.width)),
        "head.bias": rng.standard_normal(CLASSES),
    }
    for i in range({"deep": spec.depth, "shallow": 1}[insert]):
        tensors[f"prompt.{i}"] = rng.standard_normal((PROMPTS, spec.width))
    return Adapter(
        name="random",
        backbone=BackboneRef(name=name, spec=spec),
        method="vpt",
        insert=insert,  # type: ignore[arg-type]
        prompt_length=PROMPTS,
        pool=spec.pool,
        norm="after_pool" if spec.final_norm == "fc_norm" else "before_pool",
        labels=tuple(map(str, range(CLASSES))),
        preprocess=Preprocess(
            input_size=(3, *spec.image_size), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)
        ),
        tensors=tensors,
    )


def images_of(spec: BackboneSpec) -> Any:
    """Random images, uint8 [B, H, W, 3]."""
    return np.random.default_rng(2).integers(0, 256, (BATCH, *spec.image_size, 3), np.uint8)


def logits(model: Any, spec: BackboneSpec, adapter: Adapter) -> Any:
    """The reference's answer, float64 [B, C]."""
    p = adapter.preprocess
    pixels = (images_of(spec) / 255.0 - np.asarray(p.mean)) / np.asarray(p.std)
    with torch.no_grad():
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return adapter_logits(model, adapter, batch).numpy()


def graph_logits(model: Any, spec: BackboneSpec, adapter: Adapter, *, folded: bool = True) -> Any:
    """The exported graph's answer, float32 [B, C]."""
    import onnxruntime

    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    if folded:
        network = fold(spec, weights, adapter)
        how = adapter.insert, adapter.pool, adapter.norm
        graph = folded_graph(spec, network, *how, GraphOptions())
    else:
        graph = unfolded_graph(spec, weights, adapter, GraphOptions())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["logits"], {"images": images_of(spec)})
    return found


def cover(module: str, name: str) -> Row:
    """Export one name with deep and with shallow prompts."""
    model = small_model(name)
    try:
        spec = spec_from_model(model, name)
    except BackboneError as error:
        return Row(module=module, name=name, differences={}, refused=str(error))
    differences = {}
    for insert in ("deep", "shallow"):
        adapter = adapter_for(name, model, spec, insert)
        expected = logits(model, spec, adapter)
        differences[insert] = largest_difference(graph_logits(model, spec, adapter), expected)
    plain = graph_logits(model, spec, adapter, folded=False)
    differences["unfolded"] = largest_difference(plain, expected)
    return Row(module=module, name=name, differences=differences)


def table(rows: list[Row]) -> str:
    """docs/coverage.md."""
    exported = [row for row in rows if row.refused is None]
    worst = max(max(row.differences.values()) for row in exported)
    counts = collections.Counter(row.module for row in exported)
    of = collections.Counter(row.module for row in rows)
    lines = [
        "# Which backbones export",
        "",
        "Every name of timm's isotropic ViT modules, exported to ONNX with deep and with shallow",
        "prompts and compared with the reference (timm's own blocks, float64), at two blocks, two",
        "heads of the model's own width and 3 x 4 patches, with random weights. Figures are the",
        "largest difference over the largest logit on ONNX Runtime, float32; the last column is",
        "the graph of `--fold none` with shallow prompts.",
        "",
        f"timm {timm.__version__}: **{len(exported)} of {len(rows)} names export**, the largest",
        f"difference is {worst:.0e}. `python -m tests.integration.coverage docs/coverage.md` writes this,",
        "`tests/integration/test_coverage.py` walks the same names.",
        "`vptkit backbones` lists them with size, input, licence and multiply-accumulates.",
        "",
        "| module | exported | of |",
        "| --- | --- | --- |",
        *(f"| {module} | {counts[module]} | {of[module]} |" for module in MODULES),
        "",
        "| name | deep | shallow | unfolded |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        if row.refused is None:
            figures = " | ".join(f"{value:.0e}" for value in row.differences.values())
            lines.append(f"| {row.name} | {figures} |")
        else:
            lines.append(f"| {row.name} | refused: {row.refused.split(': ', 1)[1]} | | |")
    return "\n".join(lines)


def main() -> None:
    """Write the table to the file named on the command line."""
    with progress("models") as bar:
        bar.total = len(names())
        rows = []
        for module, name in names():
            rows.append(cover(module, name))
            bar.update()
    Path(sys.argv[1]).write_text(table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
