"""A case on disk: its adapter and weights, and what the bundle made of them says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from tests.support.strategies import Case, Setup, build
from vptkit.formats.adapter import write_adapter
from vptkit.formats.tensor_file import write_tensors

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Files:
    """A case on disk: adapter and weights, float32, in a folder of their own."""

    case: Case
    adapter: Path
    weights: Path
    out: Path


def files_of(folder: Path, setup: Setup, *, spec: bool = True, golden: bool = True) -> Files:
    """Write adapter and weights of a setup to `folder`/in, and make `folder`/out."""
    case = build(setup)
    tensors = {k: v.astype(np.float32) for k, v in case.adapter.tensors.items()}
    if golden:
        tensors["golden.images"] = case.images
        tensors["golden.logits"] = case.reference.astype(np.float32)
    adapter = replace(case.adapter, tensors=tensors)
    if not spec:
        adapter = replace(adapter, backbone=replace(adapter.backbone, spec=None))
    source = folder / "in"
    source.mkdir()
    write_adapter(source / "a.safetensors", adapter)
    single = {k: v.astype(np.float32) for k, v in case.weights.items()}
    write_tensors(source / "w.safetensors", single)
    out = folder / "out"
    out.mkdir()
    return Files(case, source / "a.safetensors", source / "w.safetensors", out / "a.vptk")


def answers(bundle: Path, case: Case) -> np.ndarray:
    """A bundle's logits of the case's images, by ONNX Runtime alone: float32 [B, C]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        bundle / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    feed = {"images": case.images}
    if session.get_inputs()[0].name == "pixels":
        feed = {"pixels": case.pixels.astype(np.float32)}
    return session.run(None, feed)[0]


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder: relative path → bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
