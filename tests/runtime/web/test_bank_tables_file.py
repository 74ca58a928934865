from __future__ import annotations

import numpy as np
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.bank_tables import BankShape, parse_rows
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.session.bank_session import Tables
from vptkit.runtime.web.bank_tables_file import write_tables


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_holds_what_a_session_feeds(tmp_path, precision):
    options = ExportOptions(lowering=Lowering(precision=precision))
    bundle = open_bundle(export_family(tmp_path, family(kinds=("both", "linear")), options))
    shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
    dtype = np.dtype({"fp32": "float32", "fp16": "float16"}[precision])
    for entry in bundle.manifest["adapters"]:
        listed = write_tables(bundle, entry, tmp_path / "tables.bin")
        tables = Tables(shape, dict.fromkeys(shape.rows(), dtype), 1)
        tables._used = 1
        rows = parse_rows(bundle.read(entry["file"]), tmp_path, shape)
        rows.fill(shape, tables._arrays, 0)
        content = (tmp_path / "tables.bin").read_bytes()
        assert {value["name"] for value in listed} == set(shape.rows())
        for value in listed:
            assert value["offset"] % 8 == 0
            assert value["dtype"] == dtype.name
            found = np.frombuffer(content, dtype, value["count"], value["offset"])
            expected = tables.views()[value["name"]]
            np.testing.assert_array_equal(found.reshape(value["shape"]), expected)
