from __future__ import annotations

import pytest

from vptkit.runtime.layers.operator_costs import Cost, Tensor, cost_of


def floats(*shape):
    return Tensor("float", shape)


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "flops", "moved"),
    [
        (
            "MatMul",
            [floats(2, 5, 8), floats(8, 3)],
            floats(2, 5, 3),
            2 * 30 * 8,
            4 * (80 + 24 + 30),
        ),
        ("MatMul", [floats(2, 5, 8)], floats(2, 5, 3), 2 * 30 * 8, 4 * (80 + 24 + 30)),  # packed
        ("FusedMatMul", [floats(4, 5, 8), floats(4, 3, 8)], floats(4, 5, 3), 2 * 60 * 8, 4 * 316),
        ("FusedMatMul", [floats(4, 8, 5), floats(4, 8, 3)], floats(4, 5, 3), 2 * 60 * 8, 4 * 316),
        ("Gemm", [floats(1, 8), floats(3, 8), floats(3)], floats(1, 3), 2 * 3 * 8, 4 * 38),
        (
            "Conv",
            [floats(1, 3, 32, 32), floats(7, 3, 16, 16)],
            floats(1, 7, 2, 2),
            2 * 28 * 768,
            4 * (3072 + 5376 + 28),
        ),
        ("Softmax", [floats(1, 4, 5)], floats(1, 4, 5), 0, 160),
        ("Reshape", [floats(1, 4, 5)], floats(20), 0, 0),
        (
            "MultiHeadAttention",
            [floats(1, 7, 6), floats(1, 9, 6)],
            floats(1, 7, 6),
            4 * 42 * 9,
            552,
        ),
    ],
)
def test_products_and_bytes(operator, inputs, output, flops, moved):
    assert cost_of(operator, inputs, [output]) == Cost(flops, moved)


def test_types_have_sizes():
    assert Tensor("uint8", (3, 4)).bytes == 12
    assert Tensor("float16", ()).bytes == 2
    weight = cost_of("MatMulInteger", [Tensor("int8", (1, 5, 8))], [Tensor("int32", (1, 5, 3))])
    assert weight == Cost(2 * 15 * 8, 40 + 24 + 60)


def test_what_has_no_shapes_costs_nothing():
    assert cost_of("MatMul", [], []) == Cost(0, 0)
