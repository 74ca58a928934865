"""LoRA from the command line to a bundle: folded to nothing."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.support.reference_difference import agree  # noqa: E402
from tests.tune.conftest import NAME, TINY  # noqa: E402
from vptkit.tune.idle_settings import without_idle  # noqa: E402

METHODS = ("lora", "ln+lora+vpt")
OWN = {"batch_size": 8, "prompts": 3, "golden": 6, "epochs": 2, "lr_lora": 3e-2, "lora_rank": 2}
PARITY = 1e-5  # of the largest logit


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, splits, weights):
    """A function: method → the adapter that the command line made of it, once."""
    from typer.testing import CliRunner

    from vptkit.cli import app

    folder, made = tmp_path_factory.mktemp("adapters"), {}
    arguments = ", ".join(f"{key} = {value}" for key, value in TINY.items())

    def make(method: str):
        if method not in made:
            lines = [f'backbone = "{NAME}"', f"backbone_args = {{{arguments}}}"]
            kept = without_idle({**OWN, "method": method, "lora_targets": "q,v,fc2"})
            lines += [f"{key} = {json.dumps(value)}" for key, value in kept.items()]
            (folder / "run.toml").write_text("\n".join(lines) + "\n")
            output = folder / f"{method}.safetensors"
            words = [splits, "-o", output, "--config", folder / "run.toml", "--weights", weights]
            ran = CliRunner().invoke(app, ["tune", *map(str, words), "--json"])
            assert ran.exit_code == 0, ran.output
            made[method] = output, json.loads(ran.stdout)
        return made[method]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_baked(vptkit, tuned, weights, tmp_path, method):
    (adapter, document), bundle = tuned(method), tmp_path / "a.vptk"
    factors = 2 * (2 * 2 * (32 + 32) + 2 * (128 + 32))
    others = 0 if method == "lora" else 5 * 2 * 32 + 2 * 3 * 32
    assert document["trainable_prompts"] == factors + others
    code, out, err = vptkit("export", adapter, "-o", bundle, "--weights", weights, "--json")
    assert code == 0, err
    assert json.loads(out)["parity"]["ok"]
    assert agree(bundle, adapter, weights) < PARITY
    code, out, err = vptkit("check", bundle, "--reference", "--weights", weights, "--json")
    assert code == 0, err
    assert json.loads(out)["ok"]


@pytest.mark.slow
def test_it_costs_nothing(vptkit, tuned, weights, tmp_path):
    """The same nodes, as large, as of the head alone."""
    graphs, sizes = [], []
    for method in ("linear", "lora"):
        bundle = tmp_path / f"{method}.vptk"
        code, _, err = vptkit("export", tuned(method)[0], "-o", bundle, "--weights", weights)
        assert code == 0, err
        model = onnx.load(bundle / "model.onnx")
        graphs.append([node.op_type for node in model.graph.node])
        sizes.append([tuple(value.dims) for value in model.graph.initializer])
    assert graphs[0] == graphs[1]
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_bank(vptkit, tuned, weights, tmp_path):
    """Different ranks and targets beside adapters without: each image gets its own."""
    adapters, bundle = [tuned(method)[0] for method in (*METHODS, "linear")], tmp_path / "bank.vptk"
    options = ("--layout", "bank", "--weights", weights, "-o", bundle, "--json")
    code, out, err = vptkit("export", *adapters, *options)
    assert code == 0, err
    assert json.loads(out)["parity"]["ok"]
    for adapter in adapters:
        assert agree(bundle, adapter, weights, adapter.stem) < PARITY
    assert agree(bundle, adapters[0], weights, "linear") > 1e-3  # the comparison sees the adapter
