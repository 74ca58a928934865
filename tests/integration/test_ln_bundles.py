"""Tuned LayerNorms from the command line to a bundle: folded, or looked up in a bank."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.support.reference_difference import agree  # noqa: E402
from tests.tune.conftest import NAME, TINY  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402

METHODS = {
    "ln": ("--cycles", 1, "--head-epochs", 2, "--ln-epochs", 2, "--rescale", "gamma"),
    "ln+bpt": ("--epochs", 2),
    "ln+vpt": ("--epochs", 2, "--insert", "deep"),
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A function: the settings file of a method."""
    folder = tmp_path_factory.mktemp("settings")
    arguments = ", ".join(f"{key} = {value}" for key, value in TINY.items())
    own = {"batch_size": 8, "prompts": 3, "rank": 5, "golden": 6, "lr_ln": 3e-2}

    def of(method: str):
        lines = [f'backbone = "{NAME}"', f"backbone_args = {{{arguments}}}"]
        kept = without_idle({**own, "method": method})
        lines += [f"{key} = {value!r}" for key, value in kept.items()]
        (folder / f"{method}.toml").write_text("\n".join(lines) + "\n")
        return folder / f"{method}.toml"

    return of


@pytest.fixture
def tuned(vptkit, splits, weights, settings, tmp_path):
    """A function: method → the adapter that the command line made of it."""

    def make(method: str):
        output = tmp_path / f"{method}.safetensors"
        common = ("--config", settings(method), "--weights", weights, "--json")
        code, out, err = vptkit("tune", splits, "-o", output, *common, *METHODS[method])
        assert code == 0, err
        document = json.loads(out)
        assert document["layer_norms"]["numbers"] == 5 * 2 * 32
        assert document["layer_norms"]["shift"]["total"] > 0.5  # so that a lost norm is seen
        return output

    return make


@pytest.mark.parametrize("method", list(METHODS))
def test_baked(vptkit, tuned, weights, tmp_path, method):
    adapter, bundle = tuned(method), tmp_path / "a.vptk"
    code, out, err = vptkit("export", adapter, "-o", bundle, "--weights", weights, "--json")
    assert code == 0, err
    assert json.loads(out)["parity"]["ok"]
    assert agree(bundle, adapter, weights) < 1e-4
    code, out, err = vptkit("check", bundle, "--reference", "--weights", weights, "--json")
    assert code == 0, err
    assert json.loads(out)["ok"]


def test_baked_costs_nothing(vptkit, tuned, splits, weights, settings, tmp_path):
    """As many nodes of each kind as an adapter without tuned norms."""
    import onnx

    plain = tmp_path / "plain.safetensors"
    common = ("--config", settings("linear"), "--weights", weights, "--json")
    code, _, err = vptkit("tune", splits, "-o", plain, *common)
    assert code == 0, err
    counts = []
    for adapter in (plain, tuned("ln")):
        bundle = adapter.with_suffix(".vptk")
        code, _, err = vptkit("export", adapter, "-o", bundle, "--weights", weights)
        assert code == 0, err
        graph = onnx.load(bundle / "model.onnx").graph
        counts.append(sorted(node.op_type for node in graph.node))
    assert counts[0] == counts[1]


def test_bank(vptkit, tuned, weights, tmp_path):
    adapters = [tuned(method) for method in METHODS]
    bundle = tmp_path / "bank.vptk"
    options = ("--layout", "bank", "--weights", weights, "-o", bundle, "--json")
    code, out, err = vptkit("export", *adapters, *options)
    assert code == 0, err
    assert json.loads(out)["parity"]["ok"]
    for adapter in adapters:
        assert agree(bundle, adapter, weights, adapter.stem) < 1e-4
    other = agree(bundle, adapters[0], weights, adapters[1].stem)
    assert other > 1e-2  # the comparison sees the adapter


def test_text_is_short(vptkit, splits, weights, settings, tmp_path):
    options = ("--config", settings("ln"), "--weights", weights, "--epochs", 1)
    code, out, err = vptkit("tune", splits, "-o", tmp_path / "a.safetensors", *options)
    assert code == 0, err
    assert "shift.gamma" not in out
    assert len(out.splitlines()) < 6
    code, out, err = vptkit(
        "tune", splits, "-o", tmp_path / "a.safetensors", *options, "--verbose", "--force"
    )
    assert code == 0, err
    assert "shift.gamma" in out
    assert "blocks" not in out
    assert len(out.splitlines()) < 40
