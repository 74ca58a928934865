"""Where an export goes: `-o`, or the adapter's name; and names that promise what is not written."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError
from vptkit.formats.manifest_schema import OUTPUT_CHOICES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["output_path", "outputs_of"]

_LIKE = (*OUTPUT_CHOICES, "embedding", "embeddings", "all")  # no names of folders, either

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


def outputs_of(values: Sequence[str]) -> tuple[Path | None, str]:
    """What `--output` was given, as where to write (None if unsaid) and what the graph shall give.

    Args:
        values: names of outputs, and "logits", "features" or "both"; of each kind the last counts.
            A folder of such a name is ./both.

    Raises:
        VptkitError: a name is nearly one of the three words.
    """
    words = [value for value in values if value in OUTPUT_CHOICES]
    places = [value for value in values if value not in OUTPUT_CHOICES]
    for place in places:
        if get_close_matches(place.lower(), _LIKE, n=1, cutoff=0.85):
            raise VptkitError(
                f"--output {place}: expected {', '.join(OUTPUT_CHOICES)}, or NAME.vptk; ./{place} for a "
                "folder of that name"
            )
    return (Path(places[-1]) if places else None), (words[-1] if words else OUTPUT_CHOICES[0])


def output_path(output: Path | None, adapters: Sequence[Path], *, format: str, bank: bool) -> Path:
    """Where to write.

    Args:
        output: as given; by default the first adapter's file name, in the current folder.
        adapters: files that are exported.
        format: "bundle", "onnx" or "web".
        bank: several adapters may be in there; then their bundle needs a name of its own.

    Raises:
        VptkitError: the name promises another kind of file, or there is none to take.
    """
    suffix = {"bundle": ".vptk", "onnx": ".onnx", "web": "-web"}[format]
    if output is None:
        if bank and len(adapters) > 1:
            name = "FOLDER" if format == "web" else "NAME.vptk"
            raise VptkitError(f"{len(adapters)} adapters, and no name for their bank: -o {name}")
        return Path(f"{Path(adapters[0].name).stem}{suffix}")
    if format == "onnx":
        if output.suffix.lower() != ".onnx":
            raise VptkitError(
                f"-o {output}: --format onnx writes one file, expected a name that ends in .onnx"
            )
        return output
    stem = output.with_suffix("")
    if format == "web":
        if output.suffix.lower() in (*_OTHERS, ".vptk", ".html"):
            raise VptkitError(
                f"-o {output}: --target web writes a folder with a page, expected a name as {stem}-web"
            )
        return output
    if other := _OTHERS.get(output.suffix.lower()):
        raise VptkitError(f"-o {output}: that is the name of {other.format(stem=stem)}.")
    return output
