"""The graph of a bank: only what its adapters need, and padding that changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family, worst_difference
from tests.support.strategies import Setup, build
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.export.bank.lookup_graph import bank_graph
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.fold.fold_network import fold
from vptkit.export.graph.graph_options import GraphOptions
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.bank_tables import BankShape
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


@pytest.mark.parametrize("layer_norms", [True, False])
def test_tables_are_inputs_of_the_shapes_of_the_bank(layer_norms):
    """No adapter is in the graph: only what the shape has room for shows in it."""
    case = build(Setup(tuned_norms=False))
    alone = case.adapter.without_prompts()
    folded = fold(case.spec, case.weights, alone)
    shape = BankShape.of(case.spec, pool=alone.pool, prompts=7, classes=9, layer_norms=layer_norms)
    model = bank_graph(case.spec, folded, shape, alone.pool, alone.norm, GraphOptions(batch=2))
    onnx.checker.check_model(model, full_check=True)
    inputs = {i.name: i.type.tensor_type.shape.dim for i in model.graph.input}
    assert [d.dim_value for d in inputs.pop("adapter")] == [2]
    del inputs["images"]
    assert inputs.keys() == shape.signature().keys()
    assert inputs["bank.prompts"][1].dim_value == 7
    (logits,) = model.graph.output
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim] == [2, 9]
    assert not {t.name for t in model.graph.initializer} & set(inputs)
