"""Names of images as lists write them → images: beside the list, and elsewhere only if that is allowed."""

from __future__ import annotations

import functools
import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vptkit.datasets.dataset_bounds import inside_of
from vptkit.datasets.listed_images import ListedImages
from vptkit.errors import DataError
from vptkit.regular_files import is_file
from vptkit.runtime.stores.store_address import address_of, shown_address
from vptkit.runtime.stores.stored_image import StoredImage

if TYPE_CHECKING:
    from vptkit.images.image_file import ImageFile

    from .lookup import Lookup

__all__ = ["Names", "names_beside"]

_LONGEST_NAME = 4096  # bytes
_PARENTS = 4096  # folders of which it is known where they are


class Names(Protocol):
    """The names of one list."""

    def find(self, where: str, name: str) -> ImageFile:
        """The image of a name; one that is not there is found by whoever opens it.

        Args:
            where: list and line, for messages.
            name: as the list has it.

        Raises:
            DataError: it leads out of the list's folder, or may be one of several.
        """

    def outside(self, name: str) -> bool:
        """Whether a name leads where this list must not."""


def names_beside(file: Path | str, lookup: Lookup) -> Names:
    """What the names of a list mean.

    Args:
        file: the list, or its address in a store.
        lookup: whether names may lead elsewhere.
    """
    if isinstance(file, str):
        return _StoredNames(file, allow_outside=lookup.allow_outside)
    return _LocalNames(file, allow_outside=lookup.allow_outside)


class _LocalNames:
    def __init__(self, file: Path, *, allow_outside: bool) -> None:
        self._folder, self._listed = file.parent, ListedImages(file)
        self._inside = inside_of(file, allow_outside=allow_outside)
        self._real = functools.lru_cache(_PARENTS)(os.path.realpath)

    def find(self, where: str, name: str) -> ImageFile:
        _require_name(where, name)
        if self.outside(name):
            raise DataError(_leads_out(where, name))
        if (address := address_of(name)) is not None:
            return StoredImage(address)
        path = self._folder / name
        if is_file(path):
            return path
        found = self._listed.named(name)
        if len(found) > 1:
            raise DataError(f"{where}: {self._listed.choice(name, found)}")
        return found[0] if found else path

    def outside(self, name: str) -> bool:
        if self._inside is None:
            return False
        if address_of(name) is not None:
            return True
        path = self._folder / name
        place = os.path.join(self._real(path.parent), path.name)  # noqa: PTH118 -- for each line
        if path.name == ".." or os.path.islink(path):  # noqa: PTH114 -- no error of a name that is too long
            place = os.path.realpath(path)
        return not place.startswith(self._inside)


class _StoredNames:
    def __init__(self, address: str, *, allow_outside: bool) -> None:
        self._folder, self._allowed = address.partition("?")[0].rpartition("/")[0], allow_outside

    def find(self, where: str, name: str) -> ImageFile:
        _require_name(where, name)
        if self.outside(name):
            raise DataError(_leads_out(where, name))
        return StoredImage(address_of(name) or self._joined(name))

    def outside(self, name: str) -> bool:
        if self._allowed:
            return False
        return not (address_of(name) or self._joined(name)).startswith(f"{self._folder}/")

    def _joined(self, name: str) -> str:
        scheme, _, place = self._folder.partition("://")
        return f"{scheme}://{posixpath.normpath(posixpath.join(place, name))}"


def _require_name(where: str, name: str) -> None:
    """Refuse what no file can be called, before the system is asked."""
    try:
        odd = "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME
    except UnicodeEncodeError:  # half of a pair of surrogates, from JSON
        odd = True
    if odd:
        raise DataError(f"{where}: {name[:40]!r} is not a name of a file")


def _leads_out(where: str, name: str) -> str:
    shown = shown_address(address_of(name) or Path(name))
    return (
        f"{where}: {shown} lies outside of the list's folder. If the list is to be trusted, pass "
        "--allow-outside."
    )
