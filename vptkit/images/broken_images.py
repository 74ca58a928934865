"""Images of a data set that cannot be read: all of them named at once, or left out and counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .image_file import ImageFile

__all__ = ["TOLD", "few", "name_within", "require_whole", "skipped_text"]

_MOST_TOLD = 1000  # in the message that ends a command
TOLD = 5  # in a sentence among others


def require_whole(
    data: object,
    reasons: Sequence[str],
    count: int,
    *,
    cure: str = " --skip-broken goes on without them",
) -> None:
    """Refuse broken images, all of them by name.

    Args:
        data: what was asked for.
        reasons: why each one cannot be read; a reason names its image.
        count: of all images that were tried.
        cure: what the command can do about it, for the message.

    Raises:
        DataError: there are some.
    """
    if not reasons:
        return
    told = few(reasons[:_MOST_TOLD], len(reasons))
    raise DataError(f"{data}: {len(reasons):,} of {count:,} images cannot be read.{cure}: {told}")


def skipped_text(data: Path, images: Sequence[ImageFile]) -> str:
    """As "3 broken images were skipped: train/red/1.png; …"."""
    told = [name_within(data, image) for image in images[:TOLD]]
    were = "1 broken image was" if len(images) == 1 else f"{len(images):,} broken images were"
    return f"{were} skipped: {few(told, len(images))}"


def few(told: Sequence[str], count: int) -> str:
    """What is told of so many, and how many more there are."""
    return "; ".join([*told, *([f"and {count - len(told):,} more"] if count > len(told) else [])])


def name_within(data: Path, image: ImageFile) -> str:
    """An image's name below its data set; an adapter that is shared says not where that lies."""
    folder = data if data.is_dir() else data.parent
    if isinstance(image, Path) and image.is_relative_to(folder):
        return str(image.relative_to(folder))
    return image.name
