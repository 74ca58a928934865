"""The tables of a bank: the mask, and manifests that are no banks'."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.errors import BundleError
from vptkit.formats import bank_tables as bank_format


def test_the_mask_is_exact():
    for dtype in (np.float16, np.float32):
        assert float(dtype(bank_format.MASKED)) == bank_format.MASKED
        assert np.exp(dtype(bank_format.MASKED) + dtype(500)) == 0
    assert np.float32(bank_format.MASKED).view(np.uint32) & 0xFFFF == 0  # bfloat16


def test_manifests_that_are_no_banks_are_refused(tmp_path):
    members = family(kinds=("linear",))
    with pytest.raises(BundleError, match="not those of a bank"):
        bank_format.BankShape.of_manifest({"inputs": [], "outputs": []}, members.case.spec)


def test_heads_are_as_wide_as_the_adapters_pool(tmp_path):
    members = family(kinds=("linear", "norms"))
    manifest = json.loads((export_family(tmp_path, members) / "manifest.json").read_text())
    spec = members.case.spec
    assert bank_format.BankShape.of_manifest(manifest, spec).features == 32
    for entry in manifest["adapters"]:
        entry["pool"] = "token+avg"
    with pytest.raises(BundleError, match="not those of a bank"):
        bank_format.BankShape.of_manifest(manifest, spec)
    for value in manifest["inputs"]:
        if value["name"] == "bank.head_weight":
            value["shape"][1] = 64
    assert bank_format.BankShape.of_manifest(manifest, spec).features == 64
    manifest["adapters"][0]["pool"] = "token"
    with pytest.raises(BundleError, match=r"pool differently: token, token\+avg"):
        bank_format.BankShape.of_manifest(manifest, spec)
    del manifest["adapters"][0]["pool"]
    with pytest.raises(BundleError, match="not those of a bank"):
        bank_format.BankShape.of_manifest(manifest, spec)
