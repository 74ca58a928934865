"""What goes to a board: our own code without its command line, and bundles, file by file."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vptkit.atomic_files import sha256_of_file
from vptkit.errors import TargetError, VptkitError
from vptkit.formats.bundle import MANIFEST, open_bundle
from vptkit.regular_files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from vptkit.progress import Progress

    from .ssh_link import Link

    # Opens the progress of a phase from its title and its number of steps, as
    # `vptkit.progress.progress` does.
    Phases = Callable[[str, int | None], AbstractContextManager[Progress]]

__all__ = ["Item", "bundle_items", "code_items", "ship"]

_BLOCK = 1 << 18
# Name there → package here. Python 3.10 (JetPack 6) cannot read TOML, in which the boards are
# described; 3.11 and newer have the same reader, pure Python too, under another name.
_PACKAGES = {
    "vptkit": "vptkit",
    "vptkit/runtime": "vptkit.runtime",
    "vptkit/devices": "vptkit.devices",
    "tomli": "tomllib" if sys.version_info >= (3, 11) else "tomli",
}
# What runs here only; the rooms, if they lie below vptkit/, come apart.
_STAY = {
    "vptkit": (
        *("tune", "export", "runtime", "devices"),
        *("arrow_files", "checkpoints", "cli", "cluster", "demo", "pages", "report"),
    ),
    "vptkit/runtime": (
        *(
            "bulk",
            "doctor",
            "frame_answers",
            "http_server",
            "inputs",
            "layers",
            "loadgen",
            "ray_data",
        ),
        *("serving", "stores", "streams", "triton", "web"),
    ),
}
_MARGIN = 64 << 20  # bytes that shall stay free on the board's disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file.

    Attributes:
        path: where it shall lie there, below the folder of the run.
        file: where it lies here.
        sha256: its digest.
        size: in bytes.
    """

    path: str
    file: Path
    sha256: str
    size: int


def code_items() -> list[Item]:
    """The packages that run bundles, as one tree; from a checkout or from a wheel."""
    items: list[Item] = []
    for place, package in _PACKAGES.items():
        folder = Path(next(iter(importlib.import_module(package).__path__)))
        items += [
            _item(f"{place}/{path}", folder / path, sha256_of_file(folder / path))
            for path in sorted(file.relative_to(folder) for file in folder.rglob("*"))
            if path.suffix in (".py", ".toml") and path.parts[0] not in _STAY.get(place, ())
        ]
    return items


def bundle_items(bundle: Path, folder: str) -> list[Item]:
    """A bundle's files, without the engines that were built here.

    Args:
        bundle: the bundle; its digests are checked.
        folder: where it shall lie there.

    Raises:
        BundleError: not a bundle, or it was changed.
    """
    opened = open_bundle(bundle)
    digests = {**opened.manifest["files"], MANIFEST: opened.digest}
    return [_item(f"{folder}/{name}", bundle / name, d) for name, d in digests.items()]


def ship(link: Link, items: Sequence[Item], phases: Phases) -> int:
    """Send what is not there yet, and have all of it laid out.

    Args:
        link: to the board.
        items: every file that the run needs.
        phases: opens the progress of a phase; its steps are kB.

    Returns:
        Bytes that were sent.

    Raises:
        VptkitError: the board's disk is too full, or a file changed meanwhile.
        MissingError: the connection was lost.
        TargetError: the board asks for what was not offered.
    """
    link.doing = "files were compared"
    link.order(take={item.path: [item.sha256, item.size] for item in items})
    missing = link.receive("missing")["missing"]
    found = {item.sha256: item for item in items}
    if len(set(missing)) != len(missing) or not set(missing) <= set(found):
        raise TargetError(f"{link.host}: asked for files that were not offered, or for one twice")
    total = sum(found[digest].size for digest in missing)
    if total and total + _MARGIN > link.board["free"]:
        raise VptkitError(
            f"{link.host}: {total / 1e6:.0f} MB are to be copied, and "
            f"{link.board['free'] / 1e6:.0f} MB are free there. Make room on the board."
        )
    if missing:
        link.doing = "files were copied"
        with phases("copy", total // 1000) as bar:
            sent = 0
            for digest in missing:
                for block in _blocks(found[digest]):
                    link.send(block)
                    before, sent = sent, sent + len(block)
                    text = f"{sent / 1e6:.1f} of {total / 1e6:.1f} MB"
                    bar.update(sent // 1000 - before // 1000, text)
    link.receive("taken")
    return total


def _item(path: str, file: Path, sha256: str) -> Item:
    return Item(path=path, file=file, sha256=sha256, size=file.stat().st_size)


def _blocks(item: Item) -> Iterator[bytes]:
    """The bytes of a file, exactly as many as were announced."""
    left = item.size
    with open_regular(item.file, VptkitError) as stream:
        while left:
            block = stream.read(min(left, _BLOCK))
            if not block:
                raise VptkitError(f"{item.file}: became shorter while it was copied. Try again.")
            left -= len(block)
            yield block
