"""Images as bytes, and tar files of bytes."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def png(value: int) -> bytes:
    """A PNG of 5 x 4 pixels of one grey."""
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write members, in their order, to a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
