"""The tables of a bank: the mask, and manifests that are no banks'."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.bank_cases import family
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
