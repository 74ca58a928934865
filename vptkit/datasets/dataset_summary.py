"""What was read of a data set, in a line: classes, images by split, and what was passed over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.decoding.image_formats import is_image
from vptkit.images.image_file import PackedImage, folders_in, list_images
from vptkit.images.split_names import split_of_name
from vptkit.regular_files import is_folder

from .list_places import lists_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vptkit.images.image_file import ImageFile

__all__ = ["dataset_line", "skipped_files", "skipped_text"]

_NAMES, _KINDS = 3, 4  # that are shown before "…"
_ABOUT = (".json", ".md", ".txt", ".yaml", ".yml")  # what describes archives that lie beside it


def dataset_line(
    data: Path,
    labels: Sequence[str],
    counts: Mapping[str, int],
    skipped: Mapping[str, int],
    *,
    multilabel: bool = False,
) -> str:
    """As "flowers5: 5 classes (daisy, roses, …), train 400, test 250; 3 files skipped (.heic 3)".

    Args:
        data: what the user named.
        labels: of the classes.
        counts: split → number of its images.
        skipped: of `skipped_files`.
        multilabel: an image may have several: then they are no classes.
    """
    names = ", ".join([*labels[:_NAMES], *(["…"] if len(labels) > _NAMES else [])])
    images = ", ".join(f"{name or 'images'} {count:,}" for name, count in counts.items())
    name = data.name or data.resolve().name
    one, many = ("label", "s") if multilabel else ("class", "es")
    classes = f"{len(labels)} {one}" + (many if len(labels) != 1 else "")
    parts = [f"{name}: {classes} ({names}), {images}", skipped_text(skipped)]
    return "; ".join(filter(None, parts))


def skipped_text(skipped: Mapping[str, int]) -> str:
    """As "3 files skipped (.heic 2, .mov 1)", the most frequent kinds first; "" if there are none."""
    count = sum(skipped.values())
    if not count:
        return ""
    kinds = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{kind} {number:,}" for kind, number in kinds[:_KINDS]]
    told += ["…"] if len(kinds) > _KINDS else []
    return f"{count:,} file{'s' if count != 1 else ''} skipped ({', '.join(told)})"


def skipped_files(
    data: Path, used: Iterable[ImageFile], *, multilabel: bool = False
) -> Counter[str]:
    """How many files of a data set are in none of its splits and classes, by kind.

    Of a folder all that lies below counts; of a CSV or of archives what lies in the folders of what
    was read. Hidden files never count.

    Args:
        data: what the user named.
        used: the images that were read.
        multilabel: they were read as having any number of labels.
    """
    images = list(used)
    archives = {image.file for image in images if isinstance(image, PackedImage)}
    archives |= {f for image in images if isinstance(f := getattr(image, "file", None), Path)}
    files = {str(image) for image in images if isinstance(image, Path)}
    if archives:
        return _beside_archives(archives)
    if not is_folder(data):
        return _not_listed({Path(file).parent for file in files}, files)
    places = [data, *_linked(data)]
    found = Counter[str]()
    for place in places:
        listing = list_images(place)
        found += listing.skipped
        left = sum(str(image) not in files for image in listing.images)
        found["image in no class"] += left
    found["link to a folder"] -= len(places) - 1  # those were followed
    for list_of_images in lists_in(data, multilabel=multilabel):
        found[list_of_images.suffix.lower()] -= 1  # that was read
    return +found


def _linked(data: Path) -> list[Path]:
    """Links to folders that are read as splits or classes: those at the top, and those in splits."""
    top = folders_in(data)
    inner = [p for folder in top if split_of_name(folder.name) for p in folders_in(folder)]
    return [folder for folder in (*top, *inner) if folder.is_symlink()]


def _beside_archives(archives: set[Path]) -> Counter[str]:
    suffixes = {file.suffix for file in archives} | set(_ABOUT)
    beside = {
        path
        for folder in {file.parent for file in archives}
        for path in folder.iterdir()
        if path.suffix.lower() not in suffixes and not path.name.startswith(".") and path.is_file()
    }
    return Counter(path.suffix.lower() or "no suffix" for path in beside)


def _not_listed(folders: set[Path], files: set[str]) -> Counter[str]:
    images = {
        str(path)
        for folder in folders
        for path in folder.iterdir()
        if not path.name.startswith(".") and is_image(path)
    }
    return +Counter({"image not listed": len(images - files)})
