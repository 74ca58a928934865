"""Where an export goes: `-o`, or the adapter's name; and names that promise what is not written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["output_path"]

# Suffix → what such a file is, and what makes it.
_OTHERS = {
    ".onnx": "the bare graph: pass --format onnx too, or -o {stem}.vptk for the bundle that "
    "vptkit's other commands take",
    ".engine": "a TensorRT engine: export {stem}.vptk, then vptkit build {stem}.vptk where it runs",
    ".plan": "a TensorRT engine: export {stem}.vptk, then vptkit build {stem}.vptk where it runs",
    ".trt": "a TensorRT engine: export {stem}.vptk, then vptkit build {stem}.vptk where it runs",
    ".safetensors": "an adapter or weights, as vptkit tune writes; an export is {stem}.vptk",
    ".pt": "a PyTorch file, which vptkit does not write; an export is {stem}.vptk",
    ".pth": "a PyTorch file, which vptkit does not write; an export is {stem}.vptk",
    ".bin": "a PyTorch file, which vptkit does not write; an export is {stem}.vptk",
    ".ckpt": "a PyTorch file, which vptkit does not write; an export is {stem}.vptk",
    ".tflite": "a TensorFlow Lite file, which vptkit does not write; an export is {stem}.vptk",
    ".pb": "a TensorFlow file, which vptkit does not write; an export is {stem}.vptk",
    ".xml": "an OpenVINO file, which vptkit does not write; OpenVINO reads what --format onnx writes",
    ".mlpackage": "a Core ML file, which vptkit does not write; an export is {stem}.vptk",
    ".zip": "an archive; an export is a folder, {stem}.vptk",
    ".tar": "an archive; an export is a folder, {stem}.vptk",
    ".json": "a text file; an export is a folder, {stem}.vptk; --json prints its figures",
}


def output_path(output: Path | None, adapters: Sequence[Path], *, format: str, bank: bool) -> Path:
    """Where to write.

    Args:
        output: as given; by default the first adapter's file name, in the current folder.
        adapters: files that are exported.
        format: "bundle" or "onnx".
        bank: several adapters may be in there; then their bundle needs a name of its own.

    Raises:
        VptkitError: the name promises another kind of file, or there is none to take.
    """
    suffix = ".vptk" if format == "bundle" else ".onnx"
    if output is None:
        if bank and len(adapters) > 1:
            raise VptkitError(f"{len(adapters)} adapters, and no name for their bank: -o NAME.vptk")
        return Path(f"{Path(adapters[0].name).stem}{suffix}")
    if format == "onnx":
        if output.suffix.lower() != ".onnx":
            raise VptkitError(
                f"-o {output}: --format onnx writes one file, expected a name that ends in .onnx"
            )
        return output
    if other := _OTHERS.get(output.suffix.lower()):
        stem = output.with_suffix("")
        raise VptkitError(f"-o {output}: that is the name of {other.format(stem=stem)}.")
    return output
