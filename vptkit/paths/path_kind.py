"""What lies at a path: one place that recognises it, for messages.

It is asked when something was refused, so it must neither fail nor take long: of a stranger's file
it reads the header, of a folder the first names. What it says decides nothing but a sentence; the
readers of `vptkit.formats` check for themselves.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vptkit.decoding.image_formats import IMAGE_SUFFIXES
from vptkit.errors import VptkitError
from vptkit.images.labelled_images import split_of_name
from vptkit.regular_files import is_file, is_folder, open_inside, open_regular, read_bounded
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

__all__ = ["VIDEO_SUFFIXES", "Found", "Kind", "inner_tensors", "kind_of", "names_below"]

Kind = Literal[
    "missing",
    "adapter",
    "checkpoint",
    "peft",
    "weights",
    "damaged",
    "bundle",
    "bank",
    "part",
    "web",
    "graph",
    "torch",
    "engine",
    "image",
    "video",
    "archive",
    "data file",
    "images",
    "data",
    "weights folder",
    "empty",
    "folder",
    "file",
]

# Containers that FFmpeg reads; the last is a list of pieces.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".y4m", ".h264", ".h265", ".hevc", ".mjpeg", ".mjpg"),
    ".m3u8",
)

_MOST_HEADER = 16 << 20  # bytes of a safetensors header; of a ViT-g it has 100 kB
_MOST_MANIFEST = 32 << 20
_MOST_NAMES = 2000  # of a folder; more are not looked at
_MANIFEST = "manifest.json"
_BUNDLE, _WEB = "vptkit.bundle/", "vptkit.web/"  # formats of it
_HUB_NAMES = (  # of weights, in this order
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_WEIGHTS = ("weights", "torch")
_SUFFIXES: dict[str, tuple[Kind, str]] = {
    ".onnx": ("graph", "an ONNX file"),
    **dict.fromkeys((".engine", ".plan", ".trt"), ("engine", "a TensorRT engine")),
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".pkl"), ("torch", "a PyTorch file")),
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz", ".tgz", ".xz", ".bz2"), ("archive", "")),
    **dict.fromkeys(VIDEO_SUFFIXES, ("video", "a video")),
    **dict.fromkeys((".csv", ".tsv"), ("data file", "a table of images")),
    **dict.fromkeys((".tar", ".parquet"), ("data file", "a file of a data set")),
    **dict.fromkeys((*IMAGE_SUFFIXES, ".heic", ".heif"), ("image", "an image")),
}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LORA = re.compile(r"lora_|^base_model\.")


class Found(NamedTuple):
    """What lies at a path.

    Attributes:
        kind: one word of `Kind`.
        what: the same for a message, as "an adapter".
        owner: the bundle that a file is a part of.
        inner: the one file in a folder that was probably meant.
    """

    kind: Kind
    what: str
    owner: Path | None = None
    inner: Path | None = None


def kind_of(path: Path) -> Found:
    """Look what lies at a path; never fails."""
    try:
        if is_folder(path):
            return _folder(path)
        if not os.path.lexists(path):
            return Found("missing", "no such file or folder")
        owner = _owner(path)
        if owner is not None:
            return Found("part", f"a file of the bundle {owner}", owner=owner)
        return _file(path)
    except (OSError, ValueError, VptkitError):  # a name that no file can have; no permission
        return Found("file", "nothing that can be read")


def names_below(folder: Path) -> list[str]:
    """The first names in a folder, sorted, hidden ones left out; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MOST_NAMES)]
    except (OSError, ValueError):
        return []
    return sorted(name for name in names if not name.startswith("."))


# files --------------------------------------------------------------------------------------------


def _file(path: Path) -> Found:
    if not is_file(path):
        return Found("file", "neither a file nor a folder (a link to nowhere, a FIFO, a device?)")
    with open_regular(path, VptkitError) as stream:
        head = stream.read(9)
        suffix = path.suffix.lower()
        if path.name.lower().endswith(".pth.tar"):  # no tar, but what scripts call a checkpoint
            suffix = ".pth"
        if suffix == ".safetensors" or head[8:9] == b"{":
            return _tensors(stream, head, suffix)
    known = _SUFFIXES.get(suffix)
    if head.startswith((_ZIP, _PICKLE)) and known is None:
        return Found("torch", "a PyTorch file")
    if known is None:
        return Found("file", "a file of another kind" if head else "an empty file")
    return Found(known[0], known[1] or f"an archive ({suffix})")


def _tensors(stream: BinaryIO, head: bytes, suffix: str) -> Found:
    damaged = Found("damaged", "a safetensors file that is truncated or damaged")
    if head.startswith(_ZIP) or (head.startswith(_PICKLE) and head[8:9] != b"{"):
        return Found("torch", f"a PyTorch file that is called {suffix}")
    length = int.from_bytes(head[:8], "little")
    if not 2 <= length <= _MOST_HEADER or head[8:9] != b"{":
        return damaged
    try:
        header = parse_json(head[8:] + stream.read(length - 1), "", VptkitError)
    except VptkitError:
        return damaged
    metadata = header.pop("__metadata__", None)
    if isinstance(metadata, dict) and isinstance(metadata.get("vptkit"), str):
        return _ours(metadata["vptkit"])
    if any(_LORA.search(name) for name in header):
        return Found("peft", "a PEFT adapter")
    return Found("weights", "weights of a model, without an adapter's metadata")


def _ours(text: str) -> Found:
    """By what stands under our key: an adapter, or the state of a training."""
    try:
        form = str(parse_json(text, "", VptkitError).get("format", ""))
    except VptkitError:
        form = ""
    if form.startswith("vptkit.checkpoint/"):
        return Found("checkpoint", "the checkpoint of a training that did not end")
    return Found("adapter", "an adapter")


def _owner(path: Path) -> Path | None:
    """The bundle that a file lies in, directly or in a folder of it, if any."""
    for folder in (path.parent, path.parent.parent):
        if is_file(folder / _MANIFEST) and _manifest(folder) is not None:
            return folder
    return None


# folders ------------------------------------------------------------------------------------------


def _folder(path: Path) -> Found:
    names = names_below(path)
    if _MANIFEST in names:
        manifest = _manifest(path)
        if manifest is not None:
            bank = manifest.get("layout") == "bank"
            return Found("bank", "a bank") if bank else Found("bundle", "a baked bundle")
        if _manifest(path, _WEB) is not None:
            return Found("web", "a page for browsers, as vptkit export --target web writes it")
    if "adapter_config.json" in names:
        return Found("peft", "the folder of a PEFT adapter")
    if not names:
        return Found("empty", "an empty folder")
    if path.name in ("adapters", "engines") and _owner(path) is not None:
        return Found("part", f"a folder within the bundle {path.parent}", owner=path.parent)
    return _images(path, names) or _tensor_folder(path, names) or Found("folder", "a folder")


def _images(path: Path, names: list[str]) -> Found | None:
    """A folder of images or of a data set."""
    files = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if {"dataset_dict.json", "dataset_info.json"} & set(names):
        return Found("data", "a saved data set")
    shards = any(name.endswith((".tar", ".parquet")) for name in names)
    folders = [name for name in names if is_folder(path / name) and not name.endswith(".vptk")]
    splits = [name for name in folders if split_of_name(name)]
    if shards or splits or (not files and any(_holds_images(path / n) for n in folders[:5])):
        return Found("data", "a data set")
    if files and not folders:
        return Found("images", "a folder of images")
    return Found("data", "a folder of images and folders") if files else None


def _holds_images(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names_below(folder))


def _tensor_folder(path: Path, names: list[str]) -> Found | None:
    """A folder as the hub has it: config.json beside model.safetensors."""
    inner = inner_tensors(path, names)
    if inner is None or (inner.suffix != ".json" and kind_of(inner).kind not in _WEIGHTS):
        return None
    return Found("weights folder", "a folder with weights of a model", inner=inner)


def inner_tensors(path: Path, names: Iterable[str]) -> Path | None:
    """The file of weights in a folder: as the hub calls it, an index of shards, or the only one there."""
    there = set(names)
    if there & {_MANIFEST, "adapter_config.json"}:  # a bundle's, or PEFT's
        return None
    for name in _HUB_NAMES:
        if name in there:
            return path / name
    for suffixes in ((".safetensors",), (".pth", ".pt", ".bin", ".pth.tar")):
        found = [name for name in there if name.endswith(suffixes)]
        if found:
            return path / found[0] if len(found) == 1 else None
    return None


def _manifest(folder: Path, form: str = _BUNDLE) -> dict[str, Any] | None:
    """A manifest of a format, without any check; None where it is another document."""
    try:
        with open_inside(folder, _MANIFEST, VptkitError) as stream:
            text = read_bounded(stream, folder, VptkitError, limit=_MOST_MANIFEST)
        document = parse_json(text, folder, VptkitError)
    except VptkitError:
        return None
    return document if str(document.get("format", "")).startswith(form) else None
