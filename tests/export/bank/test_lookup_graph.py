"""The graph of a bank: only what its adapters need, and padding that changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family, worst_difference
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.export import ExportOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.runtime import open_session


def test_without_prompts_nothing_of_them_is_in_the_graph(tmp_path):
    out = export_family(tmp_path, family(kinds=("linear", "norms")))
    graph = onnx.load(out / "model.onnx").graph
    names = {i.name for i in graph.input} | {node.name for node in graph.node}
    assert not [name for name in names if "bank.prompts" in name or "masked" in name]


def test_in_half_precision_the_tables_are_too(tmp_path):
    members = family()
    out = export_family(tmp_path, members, ExportOptions(lowering=Lowering(precision="fp16")))
    types = set(open_session(out, threads=1)._graph.table_types().values())
    assert types == {np.dtype(np.float16)}
    assert PARITY_FP32 < worst_difference(out, members) < 2e-2


@pytest.mark.parametrize("prompts", [3, 4, 40])
def test_padding_changes_nothing(tmp_path, prompts):
    members = family(kinds=("bilinear",))
    tight = open_session(export_family(tmp_path, members), threads=1).run(members.case.images)
    padded = open_session(export_family(tmp_path, members, prompts=prompts), threads=1)
    assert largest_difference(padded.run(members.case.images), tight) <= 1e-6
