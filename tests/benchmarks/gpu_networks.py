"""The networks of `latency_gpu.py`: one random backbone with random deep prompts, in every form."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import timm
import torch

from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.folded_graph import folded_graph
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.graph.unfolded_graph import unfolded_graph
from vptkit.export.precision.lowering import Lowering, lower
from vptkit.formats.adapter import Adapter, BackboneRef
from vptkit.images.preprocess import Preprocess
from vptkit.tune.backbone.prefix_forward import fast_features
from vptkit.tune.backbone.reference import features
from vptkit.tune.backbone.spec_from_timm import spec_from_model, weights_from_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from vptkit.export.fold.last_block import LastBlock

CLASSES = 10


class Network:
    """One random backbone with random deep prompts; weights in fp32 on the CPU."""

    def __init__(self, name: str, prompts: int) -> None:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        self.model: Any = timm.create_model(name, num_classes=CLASSES).eval()
        with torch.no_grad():
            for value in self.model.parameters():
                if value.ndim == 1:  # our writers leave out biases that are zero, torch does not
                    value.add_(0.05 * torch.randn_like(value))
        self.spec, weights = spec_from_model(self.model), weights_from_model(self.model)
        tensors: dict[str, Any] = {
            f"prompt.{i}": rng.standard_normal((prompts, self.spec.width)).astype(np.float32)
            for i in range(self.spec.depth)
        }
        tensors["head.weight"] = self.model.head.weight.detach().numpy()
        tensors["head.bias"] = self.model.head.bias.detach().numpy()
        self.adapter = Adapter(
            name="bench",
            backbone=BackboneRef(name=name, spec=self.spec),
            method="vpt",
            insert="deep",
            prompt_length=prompts,
            pool="token",
            norm="before_pool",
            labels=tuple(str(i) for i in range(CLASSES)),
            preprocess=Preprocess(
                input_size=(3, *self.spec.image_size), mean=(0.5,) * 3, std=(0.5,) * 3
            ),
            tensors=tensors,
        )
        self.weights = weights
        self.folded = fold(self.spec, weights, self.adapter)

    def images(self, batch: int) -> NDArray[np.uint8]:
        """Noise, uint8 [batch, H, W, 3]."""
        shape = (batch, *self.spec.image_size, 3)
        return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

    def forward(self, form: str, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        """pixels → logits in torch on the GPU: bare, reference (prompts as tokens) or prefix."""
        model = timm.create_model(self.adapter.backbone.name, num_classes=CLASSES)
        model.load_state_dict(self.model.state_dict())
        model = model.eval().to("cuda", dtype)
        rows = [
            torch.from_numpy(self.adapter.prompts(i).copy()).to("cuda", dtype)
            for i in range(self.spec.depth)
        ]

        def bare(pixels: torch.Tensor) -> torch.Tensor:
            return model(pixels)

        def prompted(pixels: torch.Tensor) -> torch.Tensor:
            chosen = features if form == "reference" else fast_features
            return model.head(chosen(model, pixels, rows, "deep", "token", "before_pool"))

        return bare if form == "bare" else prompted

    def write(self, batch: int, folder: Path) -> dict[str, Path]:
        """ONNX files in fp16; the bare backbone comes first: it is the yardstick."""
        paths = {"bare backbone, torch.onnx.export": folder / "usual.onnx"}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = timm.create_model(self.adapter.backbone.name, num_classes=CLASSES)
        model.load_state_dict(self.model.state_dict())
        model = model.eval().to(device, torch.float16)
        pixels = torch.zeros(batch, 3, *self.spec.image_size, dtype=torch.float16, device=device)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (pixels,), str(folder / "usual.onnx"), opset_version=17, dynamo=False,
                input_names=["pixels"], output_names=["logits"],
            )  # fmt: skip
        for number, (label, graph) in enumerate(self._graphs(batch)):
            low = lower(label, graph, Lowering(precision="fp16", target="tensorrt")).model
            paths[label] = folder / f"{number}.onnx"
            paths[label].write_bytes(low.SerializeToString())
        return paths

    def _graphs(self, batch: int) -> Iterator[tuple[str, onnx.ModelProto]]:
        """Ours, in fp32; uint8 images in, as they ship."""
        plain = GraphOptions(batch=batch)
        yield (
            "unfolded (--fold none)",
            unfolded_graph(self.spec, self.weights, self.adapter, plain),
        )
        forms: list[tuple[LastBlock, Literal["fused", "separate"], Literal["uint8", "float32"]]] = [
            ("query", "fused", "uint8"),
            ("query", "fused", "float32"),
            ("query", "separate", "uint8"),
            ("absorbed", "fused", "uint8"),
            ("full", "fused", "uint8"),
        ]
        for last, qkv, kind in forms:
            options = GraphOptions(batch=batch, last_block=last, qkv=qkv, input=kind)
            label = f"folded, last block {last}"
            label += "" if qkv == "fused" else ", q, k, v apart"
            label += "" if kind == "uint8" else ", pixels in"
            yield (
                label,
                folded_graph(self.spec, self.folded, "deep", "token", "before_pool", options),
            )
