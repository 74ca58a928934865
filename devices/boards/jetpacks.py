"""What each JetPack brings, and what is known not to work: jetpacks.toml.

TensorRT comes with JetPack on a Jetson: which versions a board can have follows from its chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .datasheet import FOLDER, Figure, open_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .datasheet import Table

__all__ = ["OLDEST_PYTHON", "SOCS", "JetPack", "Trouble", "find_jetpack", "jetpacks", "troubles"]

OLDEST_PYTHON = (3, 10)
# Chips, as the device tree calls them ("nvidia,tegra234"): Nano, TX2, Xavier, Orin, Thor.
SOCS = ("tegra210", "tegra186", "tegra194", "tegra234", "tegra264")
_PARTS = ("l4t", "ubuntu", "python", "cuda", "tensorrt", "cudnn")


@dataclass(frozen=True, slots=True, kw_only=True)
class JetPack:
    """Releases of JetPack that bring the same.

    Attributes:
        first, last: the releases, such as 6.1 and 6.2.3.
        socs: chips that it is for, such as tegra234.
        parts: versions of l4t, ubuntu, python, cuda, tensorrt and cudnn.
    """

    first: str
    last: str
    socs: tuple[str, ...]
    parts: Mapping[str, Figure]

    @property
    def name(self) -> str:
        """Such as "6.1 to 6.2.3"."""
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def tensorrt(self) -> str:
        """The version of TensorRT in it."""
        return str(self.parts["tensorrt"].value)

    @property
    def runs_vptkit(self) -> bool:
        """The system's Python, the only one that sees the system's TensorRT, is new enough."""
        return _numbers(str(self.parts["python"].value)) >= OLDEST_PYTHON

    def to_json(self) -> dict[str, Any]:
        """As `vptkit devices show --json` prints it."""
        return {
            "name": self.name,
            "runs_vptkit": self.runs_vptkit,
            **{name: part.to_json() for name, part in self.parts.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A package that does not work, or not well, on some GPUs.

    Attributes:
        package: tensorrt, tensorrt-rtx or onnxruntime-gpu.
        versions: beginnings of its versions; none stands for all.
        ccs: compute capabilities; none stands for all.
        text: what is wrong, and what to do.
        source: who says so.
    """

    package: str
    versions: tuple[str, ...]
    ccs: tuple[str, ...]
    text: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """As `vptkit devices show --json` prints it."""
        return {
            "package": self.package,
            "versions": list(self.versions),
            "ccs": list(self.ccs),
            "text": self.text,
            "source": self.source,
        }


@cache
def jetpacks(folder: Path = FOLDER) -> tuple[JetPack, ...]:
    """All, oldest first.

    Raises:
        VptkitError: jetpacks.toml breaks its schema.
    """
    return _load(folder)[0]


def find_jetpack(version: str) -> JetPack | None:
    """The row that a release such as 6.2.1 belongs to; None if it is not in the table."""
    asked = _numbers(version)
    for row in jetpacks():
        if _numbers(row.first) <= asked <= _numbers(row.last):
            return row
    return None


def troubles(
    package: str | None = None, *, version: str | None = None, cc: str | None = None
) -> tuple[Trouble, ...]:
    """What is known not to work.

    Args:
        package: of this one only.
        version: with this version only, such as "8.6.1" or "8.6.1.6".
        cc: on this compute capability only, such as "8.7".
    """
    return tuple(
        trouble
        for trouble in _load(FOLDER)[1]
        if package in (None, trouble.package)
        and (version is None or _begins(version, trouble.versions))
        and (cc is None or not trouble.ccs or cc in trouble.ccs)
    )


@cache
def _load(folder: Path) -> tuple[tuple[JetPack, ...], tuple[Trouble, ...]]:
    table = open_table("jetpacks", folder)
    rows = tuple(_jetpack(entry) for entry in table.tables("jetpack"))
    known = tuple(_trouble(entry) for entry in table.tables("trouble"))
    table.end()
    return rows, known


def _jetpack(table: Table) -> JetPack:
    socs = table.texts("socs")
    if not socs or not set(socs) <= set(SOCS):
        raise table.wrong("socs", f"is {list(socs)}, expected some of {', '.join(SOCS)}")
    row = JetPack(
        first=table.text("first"),
        last=table.text("last"),
        socs=socs,
        parts={name: table.phrase(name) for name in _PARTS},
    )
    table.end()
    return row


def _trouble(table: Table) -> Trouble:
    trouble = Trouble(
        package=table.choice("package", ("tensorrt", "tensorrt-rtx", "onnxruntime-gpu")),
        versions=table.texts("versions"),
        ccs=table.texts("ccs"),
        text=table.text("text"),
        source=table.source(),
    )
    table.end()
    return trouble


def _begins(version: str, beginnings: tuple[str, ...]) -> bool:
    """Whole numbers are compared: 8.6.1 does not begin 8.6.10."""
    return not beginnings or any(f"{version}.".startswith(f"{begin}.") for begin in beginnings)


def _numbers(version: str) -> tuple[int, ...]:
    """Such as (6, 2, 1); digits only, so that 6.2.1+b1 is (6, 2, 1, 1) and never an error."""
    return tuple(int(part) for part in "".join(c if c.isdigit() else " " for c in version).split())
