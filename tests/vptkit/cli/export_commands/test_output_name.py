"""Where an export goes, and names that promise another kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.cli.export_commands.output_name import output_path, outputs_of
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


def test_one_option_says_where_and_what():
    assert outputs_of([]) == (None, "logits")
    assert outputs_of(["x.vptk"]) == (Path("x.vptk"), "logits")
    assert outputs_of(["both", "x.vptk"]) == outputs_of(["x.vptk", "both"])
    assert outputs_of(["x.vptk", "features"]) == (Path("x.vptk"), "features")
    assert outputs_of(["a.vptk", "logits", "b.vptk", "both"]) == (Path("b.vptk"), "both")
    assert outputs_of(["./both"]) == (Path("both"), "logits")
    for word in ("feature", "Both", "embeddings", "all"):
        with pytest.raises(VptkitError, match=rf"--output {word}: expected logits, features, both"):
            outputs_of([word])
