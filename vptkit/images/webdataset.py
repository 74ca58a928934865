"""Labelled images in WebDataset shards: tar files whose members NAME.jpg and NAME.cls belong together.

Read with the standard library: an image is a place in its shard, opened at random. So compressed
shards are refused, and nothing is fetched from addresses. Of the format are read: keys, images of
Pillow's formats, labels in .cls (a number or a name), else in .json ({"label": ...}), and
classnames.txt beside the shards or their folders, one name a line.
"""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

from vptkit.errors import DataError

from .image_file import IMAGE_SUFFIXES, PackedImage
from .labelled_images import Row, Splits, group_rows, split_of_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["read_shards"]


def read_shards(files: Sequence[Path], root: Path) -> Splits:
    """The images of some shards, in order.

    Args:
        files: the shards; their names or folders may tell the split.
        root: the folder that they lie in.

    Raises:
        DataError: not a plain tar file, or a sample without image or label.
    """
    rows = (
        Row(split, label, image)
        for file in files
        for split in [split_of_file(file, root)]
        for label, image in _samples(file)
    )
    return group_rows(root, rows, _class_names(root / "classnames.txt"))


def _class_names(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a text in UTF-8: {error}") from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _samples(file: Path) -> Iterator[tuple[object, PackedImage]]:
    """Label and image of each sample."""
    labels: dict[str, object] = {}
    images: dict[str, PackedImage] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                key, suffix = _parts(member.name)
                if suffix in IMAGE_SUFFIXES:
                    if key in images:
                        raise DataError(
                            f"{file}: {key} has two images, {images[key].name} and {member.name}"
                        )
                    images[key] = _packed(file, member)
                elif suffix in (".cls", ".json"):
                    label = _label(file, member, archive, suffix)
                    if label is not None and (suffix == ".cls" or key not in labels):
                        labels[key] = label
    except tarfile.TarError as error:
        raise DataError(
            f"{file}: not a whole plain tar file: {error}. If it is compressed, decompress it."
        ) from error
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    for key in sorted(set(images) ^ set(labels)):
        lacks = "no label (.cls, or .json with label)" if key in images else "no image"
        raise DataError(f"{file}: the sample {key} has {lacks}")
    yield from ((labels[key], images[key]) for key in images)


def _parts(name: str) -> tuple[str, str]:
    """a/b.c.jpg → the key a/b and .c.jpg: the suffix begins at the first dot of the last part."""
    folder, _, last = name.rpartition("/")
    key, dot, suffix = last.partition(".")
    return f"{folder}/{key}" if folder else key, dot + suffix.lower()


def _packed(file: Path, member: tarfile.TarInfo) -> PackedImage:
    if member.issparse():
        raise DataError(f"{file}: {member.name} is sparse; write the archive without --sparse")
    return PackedImage(file, member.name.rpartition("/")[2], member.offset_data, member.size)


def _label(file: Path, member: tarfile.TarInfo, archive: tarfile.TarFile, suffix: str) -> object:
    """What a .cls or .json says; None for a .json without "label"."""
    stream = archive.extractfile(member)
    content = b"" if stream is None else stream.read()
    try:
        text = content.decode("utf-8").strip()
        label = json.loads(text).get("label") if suffix == ".json" else text
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: {member.name} is broken: {error}") from error
    return int(label) if isinstance(label, str) and label.isdecimal() else label
