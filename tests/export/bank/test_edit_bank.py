from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from tests.support.bank_cases import family, write_family
from tests.support.exported_banks import export_family
from vptkit.errors import BundleError
from vptkit.export.bank.edit_bank import add
from vptkit.formats.bank_tables import NORMS
from vptkit.formats.tensor_file import read_tensors, write_tensors

KINDS = ("both", "linear")


def without(tensors, name):
    return {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize(
    "forge",
    [
        without,
        lambda found, name: {**found, name: found[name][:-1]},
        lambda found, name: {**found, name: found[name].astype(np.int64)},
        lambda found, name: {**found, name: found[name] * np.nan},
        lambda found, name: {**found, "other": found[name]},
    ],
    ids=["missing", "short", "whole numbers", "nan", "more"],
)
def test_norms_that_are_not_the_backbones(tmp_path, forge):
    """With a digest that fits, as a forger writes it."""
    members = family(kinds=KINDS)
    bundle = export_family(tmp_path, members)
    tensors = read_tensors(bundle / NORMS, BundleError)
    write_tensors(bundle / NORMS, forge(tensors, sorted(tensors)[0]))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][NORMS] = hashlib.sha256((bundle / NORMS).read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    linear = write_family(members, tmp_path)["linear"]
    with pytest.raises(BundleError, match=r"norms\.safetensors: not the norms of this bank"):
        add(bundle, linear, name="again")
