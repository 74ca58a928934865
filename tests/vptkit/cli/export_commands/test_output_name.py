"""Where an export goes, and names that promise another kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.cli.export_commands.output_name import output_path
from vptkit.errors import VptkitError

ONE = (Path("there/flowers.safetensors"),)


def test_by_the_adapters_name_in_the_current_folder():
    assert output_path(None, ONE, format="bundle", bank=False) == Path("flowers.vptk")
    assert output_path(None, ONE, format="onnx", bank=False) == Path("flowers.onnx")
    assert output_path(None, ONE, format="bundle", bank=True) == Path("flowers.vptk")
    with pytest.raises(VptkitError, match="2 adapters, and no name for their bank"):
        output_path(None, ONE * 2, format="bundle", bank=True)


def test_a_name_that_is_given_is_taken():
    for name in ("out/x.vptk", "x", "x.v2"):
        assert output_path(Path(name), ONE, format="bundle", bank=False) == Path(name)
    assert output_path(Path("x.onnx"), ONE, format="onnx", bank=False) == Path("x.onnx")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("g.onnx", "pass --format onnx too, or -o g.vptk"),
        ("G.ONNX", "--format onnx"),
        ("out/g.engine", "vptkit build out/g.vptk"),
        ("g.plan", "TensorRT engine"),
        ("g.safetensors", "an export is g.vptk"),
        ("g.pt", "PyTorch"),
        ("g.pth", "PyTorch"),
    ],
)
def test_a_name_of_another_kind_of_file(name, advice):
    with pytest.raises(VptkitError, match=rf"-o {name}: that is the name of .*{advice}"):
        output_path(Path(name), ONE, format="bundle", bank=False)


def test_onnx_wants_its_own_name():
    with pytest.raises(VptkitError, match=r"-o x.vptk: --format onnx .*ends in \.onnx"):
        output_path(Path("x.vptk"), ONE, format="onnx", bank=False)
