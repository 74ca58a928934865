"""`vptkit build` and `vptkit inspect` of what it made."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.support.adapter_files import files_of
from tests.support.fakes.gpu import ORIN, SERVER
from tests.support.small_vit import SMALL_VIT
from vptkit.cli.runtime_commands import build
from vptkit.devices.drivers.cuda import open_device, probe
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.precision.lowering import Lowering

RTX = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
rtx = pytest.mark.skipif(not RTX, reason="TensorRT-RTX is missing")
MEMORY = {"weights_bytes": 200 * 2**20, "activation_bytes": {"fixed": 0, "per_image": 2**22}}


@pytest.fixture
def half(tmp_path):
    """A real, small graph in fp16."""
    files = files_of(tmp_path, SMALL_VIT, golden=False)
    options = ExportOptions(lowering=Lowering(precision="fp16"), batch=2)
    export(files.adapter, tmp_path / "half.vptk", weights=files.weights, options=options)
    return tmp_path / "half.vptk"


@pytest.mark.parametrize("fake_gpu", [SERVER, ORIN], indirect=True)
def test_build_and_inspect(vptkit, fake_gpu, make_bundle):
    bundle = make_bundle()
    code, out, err = vptkit("build", bundle, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["fresh"], document["version"]) == (True, "10.3.0")
    assert "layers" not in document
    assert "build: 100/100" in err
    code, out, _ = vptkit("build", bundle)
    assert code == 0
    assert "was there already" in out
    code, out, _ = vptkit("inspect", document["engine"], "--json")
    assert code == 0
    record = json.loads(out)
    assert (record["kind"], record["gpu"]) == ("engine", document["gpu"])
    assert record["layers"] == document["structure"]["layers"]


def test_inspect_an_engine_that_is_damaged(vptkit, fake_gpu, make_bundle, tmp_path):
    code, out, _ = vptkit("build", make_bundle(), "--json")
    engine = tmp_path / "copy.engine"
    engine.write_bytes(b"x")
    code, _, err = vptkit("inspect", engine)
    assert code == 2
    assert "no readable record copy.json" in err
    record = Path(json.loads(out)["engine"]).with_suffix(".json")
    (tmp_path / "copy.json").write_bytes(record.read_bytes())
    code, _, err = vptkit("inspect", engine)
    assert code == 2
    assert "not the plan" in err


def test_without_a_gpu(vptkit, make_bundle, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # should there be one
    bundle = make_bundle()
    code, out, err = vptkit("build", bundle)
    assert (code, out) == (5, "")
    assert "GPU" in err
    assert not (bundle / "engines").exists()


def test_an_engine_of_another_type(vptkit, fake_gpu, make_bundle):
    code, out, err = vptkit("build", make_bundle(), "--expect", "int8", "--json")
    assert code == 3
    assert json.loads(out)["fresh"]
    assert "no layer computes in int8" in err


def test_engines_of_another_machine(vptkit, fake_gpu, make_bundle, tmp_path, monkeypatch):
    """A bundle that comes with its engines: named, left alone, and loaded if they are trusted."""
    bundle, picture = make_bundle(), tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    check = ("check", bundle, "--backend", "tensorrt")
    assert vptkit("build", bundle)[0] == vptkit(*check)[0] == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    commands = (
        check,
        ("run", bundle, picture, "--backend", "tensorrt"),
        ("profile", bundle, "--backend", "tensorrt", "--rounds", 3),
    )
    for command in commands:
        code, out, err = vptkit(*command)
        assert (code, out) == (5, "")
        assert "not built by this user on this machine" in err
        assert f"vptkit build {bundle}. Or load" in err
        assert vptkit(*command, "--trust-engines")[0] == 0
    code, out, _ = vptkit("build", bundle, "--trust-engines", "--json")
    assert (code, json.loads(out)["fresh"]) == (0, False)
    assert vptkit("build", bundle, "--trust-engines", "--expect", "fp32")[0] == 2
    assert json.loads(vptkit("build", bundle, "--json")[1])["fresh"]
    assert vptkit(*check)[0] == 0


def test_clean(vptkit, fake_gpu, make_bundle, monkeypatch):
    bundle = make_bundle()
    monkeypatch.setenv("FAKE_TENSORRT", "8.6.2")
    _, old, _ = vptkit("build", bundle, "--json")
    monkeypatch.setenv("FAKE_TENSORRT", "10.3.0")
    _, new, _ = vptkit("build", bundle, "--json")
    code, out, _ = vptkit("build", bundle, "--clean", "--json")
    assert code == 0
    assert json.loads(old)["engine"] in json.loads(out)["removed"]
    assert json.loads(new)["engine"] not in json.loads(out)["removed"]
    assert "nothing to remove" in vptkit("build", bundle, "--clean")[1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--backend", "cuda"), 2, "expected tensorrt or tensorrt-rtx"),
        (("--batch", "1,8"), 2, "expected smallest, likely and largest"),
        (("--batch", "x"), 2, "expected smallest, likely and largest"),
        (("--expect", "fp64"), 2, "expected fp32, fp16"),
        (("--device", "orin-nano-9gb"), 2, "orin-nano"),
        (("--sm", "87"), 4, "--on user@host"),
        (("--sm", "89", "--device", "l4"), 2, "pass one of them"),
        (("--device", "orin-nano-8gb"), 4, "--on user@host"),
        (("--backend", "tensorrt-rtx", "--device", "x86-cpu"), 4, "no GPU"),
        (("--forecast", "--device", "x86-cpu"), 4, "x86-cpu has no GPU"),
    ],
)
def test_what_cannot_be_asked(vptkit, make_bundle, options, code, message):
    found, out, err = vptkit("build", make_bundle(), *options)
    assert (found, out) == (code, "")
    assert message in err


def test_a_fixed_batch_stays(vptkit, make_bundle):
    code, _, err = vptkit("build", make_bundle(batch=4), "--batch", 8)
    assert code == 2
    assert "has the fixed batch 4" in err


def test_layers_that_hide_what_is_in_them():
    made = {"layers": 2, "attentions": 12, "unfused_softmax": ["a"] * 12, "opaque": ["x"]}
    record = {"library": "tensorrt", "version": "8.6.2", "gpu": "Orin", "capability": "8.7"}
    record |= {"bytes": 1, "seconds": 1, "structure": made | {"roles": {"other": {"-": 2}}}}
    text = build._text(SimpleNamespace(path="e", fresh=True, record=record), layers=False)
    assert "2 layers; the library does not show what is inside them" in text
    assert "attention" not in text


def test_a_forecast_for_a_board(vptkit, make_bundle):
    bundle = make_bundle(memory=MEMORY, macs={"graph": 10**9})
    code, out, err = vptkit("build", bundle, "--device", "orin-nano-4gb", "--forecast", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["fits"]
    assert document["room"]["shared"]
    assert document["floor_ms"] > 0
    big = make_bundle(memory=MEMORY | {"weights_bytes": 2**30})
    code, out, _ = vptkit("build", big, "--device", "orin-nano-4gb", "--forecast")
    assert code == 0
    assert "does not fit" in out
    code, out, _ = vptkit("build", bundle, "--forecast", "--batch", 1)
    assert "batch 1" in out


def test_a_warning_before_a_build_that_may_not_fit(vptkit, fake_gpu, make_bundle):
    bundle = make_bundle(memory=MEMORY | {"activation_bytes": {"fixed": 2**50, "per_image": 0}})
    code, _, err = vptkit("build", bundle)
    assert code == 0
    assert "\nwarning: " in err[err.index("forecast: the build takes about ") :]
    assert "--batch" in err
    hopeless = make_bundle(memory=MEMORY | {"weights_bytes": 2**50})
    code, _, err = vptkit("build", hopeless)
    assert code == 4
    assert "the weights alone" in err
    assert vptkit("build", hopeless, "--force")[0] == 0


@pytest.mark.parametrize("fake_gpu", [SERVER, ORIN], indirect=True)
def test_a_forecast_before_every_build(vptkit, fake_gpu, make_bundle):
    bundle = make_bundle()
    _, _, err = vptkit("build", bundle)
    (line,) = [line for line in err.splitlines() if line.startswith("forecast: ")]
    gpu = probe().name
    assert f"; {gpu} (free now) has " in line
    assert "warning" not in err
    _, out, err = vptkit("build", bundle, "--forecast")
    assert f"({gpu} (free now))" in out
    assert err == ""


@pytest.mark.parametrize("fake_gpu", ["NVIDIA L4|8|9|0|700"], indirect=True)
def test_a_gpu_that_others_use(vptkit, fake_gpu, make_bundle):
    """Its memory would do, what is free of it does not."""
    bundle = make_bundle(memory=MEMORY | {"weights_bytes": 100 * 2**20})
    options = ("--forecast", "--batch", 1, "--workspace", 1, "--json")
    assert json.loads(vptkit("build", bundle, *options)[1])["fits"]
    others = open_device(probe()).allocate(300 * 2**20)
    document = json.loads(vptkit("build", bundle, *options)[1])
    assert not document["fits"]
    assert "NVIDIA L4 (free now) has 400 MiB" in document["tight"][0]
    del others


@rtx
def test_ahead_of_time_for_a_board(vptkit, half):
    options = ("--backend", "tensorrt-rtx", "--device", "rtx-4090", "--expect", "fp16")
    code, out, err = vptkit("build", half, *options, "--layers")
    assert code == 0, err
    assert "any GPU (8.9)" in out
    assert "attention fused 3 of 3" in out
    assert "blocks.0.attn" in out
    code, _, err = vptkit("build", half, "--backend", "tensorrt-rtx", "--device", "orin-nano-8gb")
    assert code == 4
    assert "no target SM87" in err


@rtx
@pytest.mark.slow
@pytest.mark.parametrize(("target", "code"), [("tensorrt", 0), ("cpu", 3)])
def test_int8_is_kept_or_not(vptkit, tmp_path, target, code):
    """A graph for a CPU has fused queries, keys and values: these run dequantized."""
    files = files_of(tmp_path, SMALL_VIT, golden=False)
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    options = ("--precision", "int8", "--target", target, "--calibration", images, "--batch", 1)
    out = tmp_path / "int8.vptk"
    done = vptkit("export", files.adapter, "-o", out, "--weights", files.weights, *options)
    assert done[0] == 0, done[2]
    found, _, err = vptkit(
        "build", out, "--backend", "tensorrt-rtx", "--sm", 86, "--expect", "int8"
    )
    assert found == code, err
    assert ("dequantized" in err or "not fused" in err) == (code == 3)
