"""A family's bank as a bundle, how far it is off, and refusals to make one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.bank_cases import Family, write_family
from tests.support.tolerances import largest_difference
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.runtime import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from vptkit.export.bundle.export_options import ExportOptions


def export_family(
    folder: Path, members: Family, options: ExportOptions | None = None, **room
) -> Path:
    """Write a family's adapters and their bank into `folder`; returns the bundle."""
    paths = write_family(members, folder)
    out = folder / "bank.vptk"
    export_bank(
        [paths[name] for name in members.adapters],
        out,
        weights=paths["weights"],
        options=options,
        bank=BankOptions(**room),
        force=True,
    )
    return out


def worst_difference(bundle: Path, members: Family) -> float:
    """The largest difference of a batch in which every adapter gets every image."""
    images, names = members.case.images, list(members.adapters)
    asked = [name for name in names for _ in images]
    logits = open_session(bundle, threads=1).run(np.tile(images, (len(names), 1, 1, 1)), asked)
    differences = []
    for name, rows in zip(names, np.split(logits, len(names)), strict=True):
        own = len(members.adapters[name].labels)
        assert np.isneginf(rows[:, own:]).all()
        differences.append(largest_difference(rows[:, :own], members.reference(name)))
    return max(differences)


def assert_bank_refused(tmp_path, members, change, error, match, **room):
    """The last adapter changed by `change`: no bank, an error that matches, nothing left."""
    paths = write_family(members, tmp_path)
    name = list(members.adapters)[-1]
    write_adapter(paths[name], change(read_adapter(paths[name])))
    with pytest.raises(error, match=match):
        export_bank(
            [paths[name] for name in members.adapters],
            tmp_path / "bank.vptk",
            weights=paths["weights"],
            bank=BankOptions(**room),
        )
    assert not (tmp_path / "bank.vptk").exists()
