"""`vptkit export` from outside: documents, one line of error, nothing left behind."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import struct
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.support.children import PIPE, Child, run_child  # noqa: E402
from tests.support.tuned_inputs import (  # noqa: E402, F401 -- a fixture among them
    assert_only_error,
    make_folders,
    make_weights,
    names,
    no_space,
    one_thread,
    wait_for,
)
from vptkit.api.compiling import export as compile_adapter  # noqa: E402
from vptkit.cli.export_commands.export import export as command  # noqa: E402
from vptkit.export.bundle.export_options import ExportOptions  # noqa: E402
from vptkit.formats.adapter import read_adapter, write_adapter  # noqa: E402
from vptkit.formats.bundle import open_bundle  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def export(vptkit, inputs, tmp_path):
    """A function: `vptkit export` of an adapter, into tmp_path/out/."""
    (tmp_path / "out").mkdir(exist_ok=True)

    def run(*arguments: object, adapter: Path | None = None, weights: str = "weights"):
        return vptkit(
            *("export", adapter or inputs / "adapter.safetensors"),
            *("-o", tmp_path / "out" / "a.vptk"),
            *("--weights", inputs / f"{weights}.safetensors"),
            *arguments,
        )

    return run


def test_export(export, vptkit, tmp_path):
    code, out, err = export("--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["bundle"] == str(tmp_path / "out" / "a.vptk")
    assert document["parity"]["ok"] is True
    assert document["macs"]["graph"] < document["macs"]["unfolded"]
    assert {"name", "precision", "layout", "batch", "fold", "folds"} <= set(document)
    open_bundle(tmp_path / "out" / "a.vptk")
    assert vptkit("check", tmp_path / "out" / "a.vptk", "--json")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fold", "none"),
        ("--input", "float32", "--batch", "2"),
        ("--last-block", "query"),
        ("--no-verify",),
    ],
)
def test_export_options(export, arguments):
    code, out, err = export(*arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["parity"] is None) == (arguments == ("--no-verify",))


def test_export_ends_with_a_verdict_and_the_next_command(export, tmp_path):
    code, out, err = export()
    assert (code, err) == (0, "")
    path = tmp_path / "out" / "a.vptk"
    lines = out.splitlines()
    assert re.fullmatch(
        r"OK: 3 golden images, largest difference \de-\d\d \(allowed 1e-04\), same top-1", lines[0]
    )
    assert re.match(r"fp32, \d\.\d\d × the backbone's multiply-accumulates", lines[1])
    assert lines[-2].startswith(f"wrote {path} (")
    assert lines[-1] == f"next: vptkit run {path} photos/"
    assert "macs.backbone" not in out
    code, out, _ = export("--verbose", "--force")
    assert code == 0
    assert out.splitlines()[: len(lines)] == lines
    assert "macs.backbone" in out


def test_export_names_its_output_after_the_adapter(vptkit, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = ("--weights", inputs / "weights.safetensors")
    code, out, err = vptkit("export", inputs / "adapter.safetensors", *weights)
    assert code == 0, err
    assert out.splitlines()[-1] == "next: vptkit run adapter.vptk photos/"
    open_bundle(tmp_path / "adapter.vptk")


def test_export_of_the_bare_graph(export, vptkit, inputs, tmp_path):
    import onnxruntime

    assert_only_error(export("-o", tmp_path / "g.onnx"), 2, "--format onnx", "-o")
    assert not (tmp_path / "g.onnx").exists()
    assert_only_error(export("--format", "onnx"), 2, "a.vptk: --format onnx", ".onnx")
    code, out, err = export("-o", tmp_path / "g.onnx", "--format", "onnx", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["onnx"] == str(tmp_path / "g.onnx")
    assert document["parity"]["ok"]
    assert (tmp_path / "g.onnx").is_file()
    images, logits = read_adapter(inputs / "adapter.safetensors").golden()
    graph = onnxruntime.InferenceSession(tmp_path / "g.onnx")
    assert np.allclose(graph.run(["logits"], {"images": images})[0], logits, atol=1e-3)
    assert_only_error(export("-o", tmp_path / "g.onnx", "--format", "onnx"), 2, "exists already")
    asked = ("--format", "onnx", "--force", "--batch", 2, "--no-verify", "--output", "both")
    code, out, _ = export("-o", tmp_path / "g.onnx", *asked)
    assert code == 0
    assert "vptkit.preprocess" in out
    again = out.splitlines()[-1]
    options = f"--weights {inputs / 'weights.safetensors'} --batch 2 --no-verify --output both"
    assert again == (
        f"next: vptkit export {inputs / 'adapter.safetensors'} {options} -o {tmp_path / 'g.vptk'}"
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--calibration", "."), "--calibration has no effect here"),
        (("--gate", "."), "--gate has no effect here: it goes with --precision fp16, bf16"),
        (("--island", "head"), "--island"),
        (("--no-islands",), "--no-islands"),
        (("--min-agreement", "0.9"), "--min-agreement"),
        (("--precision", "fp16", "--min-agreement", "0.9"), "--gate or --calibration"),
        (("--precision", "int8", "--calibration-images", "128"), "--calibration-images"),
        (("--allow-outside",), "--allow-outside"),
        (("--bank-prompts", "3"), "--layout bank"),
        (("--bank-layer-norms", "auto"), "--layout bank"),
        (("--fold", "none", "--last-block", "full"), "--fold all"),
        (("--no-verify", "--threads", "1"), "--threads"),
        (("--format", "onnx", "--layout", "bank"), "--format onnx does not go with --layout bank"),
    ],
)
def test_export_refuses_what_has_no_effect(export, tmp_path, arguments, part):
    assert_only_error(export(*arguments), 2, part)
    assert names(tmp_path / "out") == set()


def test_a_form_of_the_last_block_is_for_token_pooling(vptkit, tiny_adapter, tmp_path):
    adapter = replace(read_adapter(tiny_adapter), pool="avg")
    write_adapter(tiny_adapter, adapter)
    options = ("-o", tmp_path / "x.vptk", "--last-block", "query")
    assert_only_error(vptkit("export", tiny_adapter, *options), 2, "token pooling", "pools 'avg'")


def damaged(inputs: Path, path: Path, damage: str) -> Path:
    source = inputs / "adapter.safetensors"
    content = source.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif damage == "header":
        path.write_bytes(content[:50])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "nan":
        adapter = read_adapter(source)
        good = np.float32(adapter.tensors["prompt.1.a"][0, 0]).tobytes()
        assert content.count(good) == 1
        path.write_bytes(content.replace(good, np.float32("nan").tobytes()))
    elif damage == "weights":
        path.write_bytes((inputs / "weights.safetensors").read_bytes())
    elif damage == "format":
        path.write_bytes(content.replace(b"vptkit.adapter/1", b"vptkit.adapter/9"))
    return path


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        ("truncated", "truncated or damaged"),
        ("header", "truncated or damaged"),
        ("empty", "truncated or damaged"),
        ("nan", "prompt.1.a holds NaN or Inf"),
        ("weights", "not an adapter file"),
        ("format", "'vptkit.adapter/9'"),
        ("absent", "no such file"),
    ],
)
def test_export_of_a_bad_adapter(export, inputs, tmp_path, damage, part):
    path = damaged(inputs, tmp_path / "bad.safetensors", damage)
    assert_only_error(export("--json", adapter=path), 2, "bad.safetensors", part)
    assert names(tmp_path / "out") == set()


def test_export_with_another_backbone(export, tmp_path):
    assert_only_error(export(weights="other"), 2, "other.safetensors", "digest", "tuned")
    assert names(tmp_path / "out") == set()
    assert_only_error(export(weights="nowhere"), 2, "nowhere.safetensors")


def test_export_with_weights_of_another_shape(export, inputs, tmp_path):
    make_weights(inputs / "deeper.safetensors", depth=3)
    result = export(weights="deeper")
    (inputs / "deeper.safetensors").unlink()
    assert_only_error(result, 2, "deeper.safetensors")
    assert names(tmp_path / "out") == set()


def test_export_that_fails_its_gate(export, inputs, tmp_path):
    """Golden answers of another adapter: 3, and nothing is left."""
    adapter = read_adapter(inputs / "adapter.safetensors")
    adapter.tensors["golden.logits"] = adapter.tensors["golden.logits"] + np.float32(1)
    write_adapter(tmp_path / "bad.safetensors", adapter)
    assert_only_error(export("--json", adapter=tmp_path / "bad.safetensors"), 3, "golden")
    assert names(tmp_path / "out") == set()


def test_export_of_an_unsupported_pool(export, inputs, tmp_path):
    text = (inputs / "adapter.safetensors").read_bytes()
    path = tmp_path / "map.safetensors"
    header = text.replace(
        b'\\"pool\\":\\"token\\",\\"preprocess', b'\\"pool\\":\\"map\\",\\"preprocess'
    )
    length = struct.unpack("<Q", text[:8])[0] - (len(text) - len(header))
    path.write_bytes(struct.pack("<Q", length) + header[8:])
    assert_only_error(export(adapter=path), 2, "pool is 'map'", "no attention pooling")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("--layout", "bank", "--precision", "int8", "--calibration", "."), 4, "--layout bank"),
        (("--layout", "bank", "--gate", "."), 4, "--gate"),
        (("--precision", "int8"), 2, "--calibration DIR"),
        (("--precision", "fp12"), 2, "'fp12': expected fp32"),
        (("--layout", "heap"), 2, "'heap': expected baked"),
        (("--input", "int4"), 2, "'int4'"),
        (("--fold", "some"), 2, "'some'"),
        (("--last-block", "first"), 2, "'first'"),
        (("--batch", "0"), 2, "--batch '0'"),
        (("--batch", "many"), 2, "'many'"),
    ],
)
def test_export_of_what_it_cannot(export, tmp_path, arguments, code, part):
    assert_only_error(export(*arguments, "--json"), code, part)
    assert names(tmp_path / "out") == set()


def test_two_adapters_need_a_bank(export, inputs):
    assert_only_error(export(inputs / "adapter.safetensors"), 2, "2 adapters", "--layout bank")


def test_export_does_not_overwrite(export, tmp_path):
    (tmp_path / "out" / "a.vptk").mkdir()
    (tmp_path / "out" / "a.vptk" / "mine").write_text("precious")
    assert_only_error(export("--json"), 2, "a.vptk: exists already", "--force")
    assert names(tmp_path / "out" / "a.vptk") == {"mine"}
    assert export("--force", "--json")[0] == 0
    assert "model.onnx" in names(tmp_path / "out" / "a.vptk")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["folded_graph", "write_manifest"])
@pytest.mark.parametrize("force", [False, True])
def test_export_interrupted(export, tmp_path, monkeypatch, sent, step, force):
    from vptkit.export.bundle import export_bundle

    real = getattr(export_bundle, step)

    def interrupted(*arguments: object) -> object:
        signal.raise_signal(sent)
        return real(*arguments)

    if force:
        (tmp_path / "out" / "a.vptk").mkdir()
        (tmp_path / "out" / "a.vptk" / "mine").write_text("precious")
    monkeypatch.setattr(export_bundle, step, interrupted)
    code, out, err = export("--json", *(["--force"] if force else []))
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert names(tmp_path / "out") == ({"a.vptk"} if force else set())
    if force:
        assert names(tmp_path / "out" / "a.vptk") == {"mine"}


def test_export_with_a_full_disk(export, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        result = export()
    assert_only_error(result, 2, "No space left on device")
    assert names(tmp_path / "out") == set()


SLOW_EXPORT = """
import sys, time
from pathlib import Path
from vptkit import cli
from vptkit.export.bundle import export_bundle

mark = Path(sys.argv.pop(1))
export_bundle.write_manifest = lambda *_: (mark.touch(), time.sleep(60))
cli.main()
"""


@pytest.mark.slow
def test_export_interrupted_from_outside(inputs, tmp_path):
    (tmp_path / "out").mkdir()
    arguments = ["export", inputs / "adapter.safetensors", "-o", tmp_path / "out" / "a.vptk"]
    arguments += ["--weights", inputs / "weights.safetensors", "--json"]
    command = [sys.executable, "-c", SLOW_EXPORT, tmp_path / "mark", *arguments]
    with Child(command, stdout=PIPE, stderr=PIPE) as process:
        wait_for(tmp_path / "mark", process)
        made = sorted(name[-5:] for name in names(tmp_path / "out"))
        assert made == [".lock", ".part"]  # the temporary folder
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert names(tmp_path / "out") == set()


EXPORT_WITHOUT_TORCH = """
import sys
from vptkit import cli
try:
    cli.main()
finally:
    loaded = sorted({"torch", "timm"} & set(sys.modules))
    print(loaded, file=sys.stderr)
"""


@pytest.mark.slow
def test_export_does_not_load_torch(inputs, tmp_path):
    """The adapter carries its spec and the file has the right names: numpy and onnx will do."""
    arguments = ["export", inputs / "adapter.safetensors", "-o", tmp_path / "a.vptk", "--json"]
    arguments += ["--weights", inputs / "weights.safetensors"]
    done = run_child([sys.executable, "-c", EXPORT_WITHOUT_TORCH, *arguments], check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"]["ok"] is True
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_python_function_has_the_defaults_of_the_command():
    ours, theirs = (inspect.signature(f).parameters for f in (compile_adapter, command))
    shared = {"weights", "calibration", "gate", "calibration_images", "allow_outside", "threads"}
    shared |= {"verify", "force"}
    for name in shared:
        assert ours[name].default == theirs[name].default, name
    lowering = ExportOptions().lowering
    assert (lowering.precision, lowering.target) == ("fp32", theirs["target"].default)
    for name in ("input", "fold", "last_block"):
        assert getattr(ExportOptions(), name) == theirs[name].default


@pytest.mark.slow
def test_export_of_features(export, vptkit, inputs, tmp_path):
    code, out, err = export("--output", "features", "--normalize-features")
    assert code == 0, err
    place = tmp_path / "out" / "a.vptk"
    lines = out.splitlines()
    assert re.fullmatch(
        r"OK: 3 golden images, largest difference \S+ \(allowed 1e-04\); "
        r"features: cosine 1\.00000 on average, 1\.00000 at least",
        lines[0],
    )
    assert lines[-1] == f"next: vptkit run {place} photos/ --features photos.npy"
    assert open_bundle(place).outputs == ("features",)
    weights = ("--weights", inputs / "weights.safetensors")
    for output in ("features", "both"):
        assert export("--output", output, "--normalize-features", "--force")[0] == 0
        code, out, err = vptkit("check", place, "--reference", *weights, "--json")
        assert code == 0, err
        assert json.loads(out)["features"]["min_cosine"] > 0.999999
    assert_only_error(export("--normalize-features"), 2, "goes with --output features or both")
    assert_only_error(export("--output", "feature"), 2, "expected logits, features, both")


@pytest.mark.slow
def test_export_of_what_rejects_other_images(export, vptkit, inputs, tmp_path):
    data = tmp_path / "data"
    make_folders(data / "train", 6)
    make_folders(data / "val", 8, seed=1)
    reject = ("--reject-from", data)
    code, out, err = export("--output", "both", *reject, "--json")
    assert code == 0, err
    report = json.loads(out)["rejection"]
    assert (report["train"]["count"], report["val"]["count"]) == (18, 24)
    assert report["classes_left_out"] == 3
    place = tmp_path / "out" / "a.vptk"
    assert "rejection.safetensors" in open_bundle(place).manifest["files"]
    code, out, err = vptkit("run", place, data / "val", "--reject", "0.1", "--json")
    rejected = [json.loads(line)["rejected"] for line in out.splitlines()]
    # the farthest of 24; the next one has 2 or 3 / 25 of them as far: itself, by the last bit
    assert sum(rejected) in (1, 2)
    code, out, err = export("--output", "features", *reject, "--force")
    assert re.search(r"--reject 0\.05 accepts \d+\.\d % of the images of a class that it does", out)
    assert_only_error(export(*reject), 2, "--reject-from has no effect here")
    assert_only_error(
        export("--output", "both", *reject, "--format", "onnx"), 2, "kept in a bundle"
    )
    undivided = ("--reject-from", inputs / "data", "--force")
    assert_only_error(export("--output", "both", *undivided), 2, "no split train and val")
