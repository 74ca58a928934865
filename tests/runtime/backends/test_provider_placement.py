from __future__ import annotations

import json
from collections import Counter

import pytest

from vptkit.errors import TargetError
from vptkit.runtime.backends.provider_placement import read_placement, require_on

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def test_a_profile_is_counted_by_provider_and_operator(tmp_path):
    def node(operator: str, provider: str | None) -> dict:
        arguments = {"op_name": operator} | ({"provider": provider} if provider else {})
        return {"cat": "Node", "name": f"{operator}_kernel_time", "args": arguments}

    events = [
        {"cat": "Session", "name": "session_initialization"},
        {"cat": "Session", "name": "model_run", "args": {"provider": CPU}},
        *(node("MatMul", CUDA) for _ in range(2)),
        node("Gather", CPU),
        node("fence", None),
    ]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    found = read_placement(tmp_path / "profile.json")
    assert found == {CUDA: Counter(MatMul=2), CPU: Counter(Gather=1)}


@pytest.mark.parametrize(
    "operator",
    [
        *("MatMul", "FusedMatMul", "MatMulIntegerToFloat", "Gemm", "FusedConv", "Softmax"),
        *("LayerNormalization", "SkipLayerNormalization", "MultiHeadAttention", "BiasGelu", "Erf"),
    ],
)
def test_work_elsewhere_is_refused(operator):
    placement = {CUDA: Counter(MatMul=9), CPU: Counter({operator: 3})}
    with pytest.raises(TargetError, match=f"there ran 3 {operator} on {CPU}"):
        require_on(CUDA, placement)


def test_shapes_elsewhere_are_not_work():
    require_on(CUDA, {CUDA: Counter(MatMul=9), CPU: Counter(Shape=3, Gather=3, Concat=2, Add=1)})


@pytest.mark.parametrize("placement", [{}, {CPU: Counter(Add=1)}, {CUDA: Counter()}])
def test_a_provider_without_a_node_is_refused(placement):
    with pytest.raises(TargetError, match=f"{CUDA} ran no node"):
        require_on(CUDA, placement)
