"""`vptkit tune` and `vptkit export` from outside: documents, one line of error, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import sys
import time
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.support.children import PIPE, Child, run_child  # noqa: E402
from vptkit.formats.adapter import read_adapter, write_adapter  # noqa: E402
from vptkit.formats.bundle import open_bundle  # noqa: E402
from vptkit.tune import TuneConfig  # noqa: E402
from vptkit.tune import tune as run_tune  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
COLOURS = {"blue": (40, 60, 190), "green": (50, 170, 60), "red": (190, 50, 40)}
MAIN = [sys.executable, "-c", "from vptkit.cli import main; main()"]


def make_weights(path: Path, seed: int = 0, **arguments: object) -> Path:
    model = timm.create_model(NAME, num_classes=0, **{**TINY, **arguments})
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    save_file(state, path)
    return path


def make_folders(root: Path, count: int = 4, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.normal(colour, 40, (36, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """weights.safetensors, other.safetensors, run.toml, data/ and a tuned adapter. Read only."""
    folder = tmp_path_factory.mktemp("inputs")
    weights = make_weights(folder / "weights.safetensors")
    make_weights(folder / "other.safetensors", seed=1)
    make_folders(folder / "data", 6)
    arguments = ", ".join(f"{key} = {value}" for key, value in TINY.items())
    (folder / "run.toml").write_text(
        f'backbone = "{NAME}"\nbackbone_args = {{ {arguments} }}\n'
        "method = 'bpt'\nepochs = 1\nbatch_size = 8\nprompts = 3\nrank = 4\ngolden = 3\n"
    )
    config = TuneConfig(
        backbone=NAME,
        backbone_args=TINY,
        weights=weights,
        method="bpt",
        epochs=1,
        batch_size=8,
        prompts=3,
        rank=4,
        golden=3,
    )
    run_tune(folder / "data", folder / "adapter.safetensors", config)
    return folder


@pytest.fixture
def tune(vptkit, inputs, tmp_path):
    """A function: `vptkit tune` with the settings of run.toml, into tmp_path/out/."""
    (tmp_path / "out").mkdir()

    def run(*arguments: object, data: Path | None = None) -> tuple[int, str, str]:
        return vptkit(
            *("tune", data or inputs / "data", "-o", tmp_path / "out" / "a.safetensors"),
            *("--config", inputs / "run.toml", "--weights", inputs / "weights.safetensors"),
            *arguments,
        )

    return run


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


def assert_error(result: tuple[int, str, str], code: int, *parts: str) -> None:
    """One line of error at the end of standard error, no traceback, no document."""
    assert result[0] == code, result[2]
    assert result[1] == ""
    lines = result[2].strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    for part in parts:
        assert part in lines[-1]
    assert "Traceback" not in result[2]


# ---- tune ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bpt", "vpt", "linear"])
def test_tune(tune, tmp_path, method):
    code, out, err = tune("--method", method, "--json")
    assert code == 0, err
    document = json.loads(out)  # one document and nothing else
    assert document["adapter"] == str(tmp_path / "out" / "a.safetensors")
    wanted = {"adapter", "trainable", "trainable_prompts", "val_top1", "test_top1", "seconds"}
    assert wanted <= set(document)
    assert "tune: " in err
    assert "Traceback" not in err
    assert names(tmp_path / "out") == {"a.safetensors", "a.metrics.jsonl", "a.curves.png"}
    assert read_adapter(tmp_path / "out" / "a.safetensors").method == method


def test_tune_prints_for_people(tune):
    code, out, _ = tune()
    assert code == 0
    assert "val_top1" in out
    assert not out.startswith("{")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--method", "lora"), ("method is 'lora'", "bpt, vpt, ln, ln+bpt, ln+vpt, linear")),
        (("--epochs", "0"), ("epochs is 0", "at least 1")),
        (("--lr", "-1"), ("lr is -1.0",)),
        (("--backbone", "vit_of_mine"), ("vit_of_mine: timm has no model of this name",)),
        (("--backbone", "resnet18"), ("resnet18",)),
        (("--image-size", "-8"), ("cannot build it",)),
        (("--pool", "map"), ("no attention pooling",)),
        (("--rank", "99", "--b-init", "whiten"), ("rank 99", "width 32")),
    ],
)
def test_tune_with_bad_settings(tune, tmp_path, arguments, parts):
    assert_error(tune(*arguments, "--json"), 2, *parts)
    assert names(tmp_path / "out") == set()


def test_tune_with_an_unsupported_feature(tune, inputs, tmp_path):
    weights = make_weights(tmp_path / "w.safetensors", act_layer="relu")
    text = (inputs / "run.toml").read_text().replace("{ img", '{ act_layer = "relu", img')
    (tmp_path / "q.toml").write_text(text)
    result = tune("--config", tmp_path / "q.toml", "--weights", weights)
    assert_error(result, 2, "vit_tiny_patch16_224", "not supported yet", "act_layer=ReLU")
    assert names(tmp_path / "out") == set()


def test_tune_without_a_network(vptkit, inputs, tmp_path, monkeypatch):
    create = timm.create_model

    def offline(*args: object, pretrained: bool, **more: object) -> object:
        if pretrained:
            raise OSError("no route to host")
        return create(*args, pretrained=False, **more)

    monkeypatch.setattr(timm, "create_model", offline)
    output = tmp_path / "a.safetensors"
    result = vptkit("tune", inputs / "data", "-o", output, "--config", inputs / "run.toml")
    assert_error(result, 2, "could not be fetched", "--weights FILE")
    assert names(tmp_path) == set()


def edited(inputs: Path, folder: Path, damage: str) -> Path:
    """A copy of the data, split by folder, with one thing wrong."""
    for seed, split in enumerate(("train", "val")):
        make_folders(folder / split, 4, seed)
    victim = folder / "train" / "green" / "1.png"
    if damage == "empty":
        return (folder / "nothing").mkdir() or folder / "nothing"
    if damage == "one class":
        make_folders(folder / "one")
        for name in ("blue", "red"):
            for file in (folder / "one" / name).iterdir():
                file.unlink()
            (folder / "one" / name).rmdir()
        return folder / "one"
    if damage == "other labels":
        (folder / "val" / "red").rename(folder / "val" / "rouge")
    elif damage == "no val":
        (folder / "val").rename(folder / "somewhere")
    elif damage == "unreadable":
        victim.write_bytes(b"these are not pixels")
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:300])
    else:
        victim.write_bytes(bomb(int(damage)))
    return folder


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims to be side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(3 * 1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        ("empty", ("nothing: empty", "one folder per class")),
        ("one class", ("only one class, 'green'",)),
        ("other labels", ("val: its classes differ", "'red', 'rouge'")),
        ("no val", ("no val/",)),
        ("unreadable", ("train/green/1.png", "not an image")),
        ("truncated", ("train/green/1.png", "broken")),
        ("10000", ("train/green/1.png", "bomb")),
        ("30000", ("train/green/1.png", "bomb")),
    ],
)
def test_tune_on_bad_data(tune, inputs, tmp_path, damage, parts):
    assert_error(tune(data=edited(inputs, tmp_path / "d", damage)), 2, *parts)
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize("damage", ["truncated", "nan", "another model's", "absent"])
def test_tune_with_bad_weights(tune, inputs, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    content = (inputs / "weights.safetensors").read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "nan":
        state = load_file(inputs / "weights.safetensors")
        state["norm.bias"][0] = float("nan")
        save_file(state, path)
    elif damage == "another model's":
        make_weights(path, depth=3)
    assert_error(tune("--weights", path), 2, "w.safetensors")
    assert names(tmp_path / "out") == set()


def test_tune_does_not_overwrite(tune, tmp_path):
    (tmp_path / "out" / "a.safetensors").write_bytes(b"precious")
    assert_error(tune("--json"), 2, "a.safetensors: exists already", "--force")
    assert (tmp_path / "out" / "a.safetensors").read_bytes() == b"precious"
    assert tune("--force", "--json")[0] == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_tune_interrupted_and_resumed(tune, tmp_path, monkeypatch, sent):
    from vptkit.tune.training import phased_training as module

    real, calls = module.save_checkpoint, []

    def save(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(sent)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_checkpoint", save)
        code, out, err = tune("--epochs", 3, "--json")
    assert (code, out) == (130, "")
    assert "--resume" in err
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert names(tmp_path / "out") == {"a.checkpoint.safetensors", "a.metrics.jsonl"}

    assert_error(tune("--epochs", 3), 2, "--resume", "--force")
    assert_error(tune("--epochs", 4, "--resume"), 2, "config.epochs was 3, is 4")
    code, out, _ = tune("--epochs", 3, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["best_epoch"] <= 3


def test_tune_with_a_full_disk(tune, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        result = tune()
    assert_error(result, 2, "No space left on device")
    assert names(tmp_path / "out") == set()


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
def test_tune_interrupted_from_outside(inputs, tmp_path):
    """A process of its own, and Ctrl-C at whatever moment it comes."""
    output = tmp_path / "a.safetensors"
    arguments = ["tune", inputs / "data", "-o", output, "--config", inputs / "run.toml", "--json"]
    arguments += ["--weights", inputs / "weights.safetensors", "--epochs", 9999, "--threads", 1]
    with Child([*MAIN, *arguments], stdout=PIPE, stderr=PIPE) as process:
        wait_for(tmp_path / "a.checkpoint.safetensors", process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert names(tmp_path) == {"a.checkpoint.safetensors", "a.metrics.jsonl"}


def wait_for(path: Path, process: Child) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


# ---- export -------------------------------------------------------------------------------------


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
    assert_error(export("--json", adapter=path), 2, "bad.safetensors", part)
    assert names(tmp_path / "out") == set()


def test_export_with_another_backbone(export, tmp_path):
    assert_error(export(weights="other"), 2, "other.safetensors", "digest", "tuned")
    assert names(tmp_path / "out") == set()
    assert_error(export(weights="nowhere"), 2, "nowhere.safetensors")


def test_export_with_weights_of_another_shape(export, inputs, tmp_path):
    make_weights(inputs / "deeper.safetensors", depth=3)
    result = export(weights="deeper")
    (inputs / "deeper.safetensors").unlink()
    assert_error(result, 2, "deeper.safetensors")
    assert names(tmp_path / "out") == set()


def test_export_that_fails_its_gate(export, inputs, tmp_path):
    """Golden answers of another adapter: 3, and nothing is left."""
    adapter = read_adapter(inputs / "adapter.safetensors")
    adapter.tensors["golden.logits"] = adapter.tensors["golden.logits"] + np.float32(1)
    write_adapter(tmp_path / "bad.safetensors", adapter)
    assert_error(export("--json", adapter=tmp_path / "bad.safetensors"), 3, "golden")
    assert names(tmp_path / "out") == set()


def test_export_of_an_unsupported_pool(export, inputs, tmp_path):
    text = (inputs / "adapter.safetensors").read_bytes()
    path = tmp_path / "map.safetensors"
    header = text.replace(
        b'\\"pool\\":\\"token\\",\\"preprocess', b'\\"pool\\":\\"map\\",\\"preprocess'
    )
    length = struct.unpack("<Q", text[:8])[0] - (len(text) - len(header))
    path.write_bytes(struct.pack("<Q", length) + header[8:])
    assert_error(export(adapter=path), 2, "pool is 'map'", "no attention pooling")


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
    assert_error(export(*arguments, "--json"), code, part)
    assert names(tmp_path / "out") == set()


def test_two_adapters_need_a_bank(export, inputs):
    assert_error(export(inputs / "adapter.safetensors"), 2, "2 adapters", "--layout bank")


def test_export_does_not_overwrite(export, tmp_path):
    (tmp_path / "out" / "a.vptk").mkdir()
    (tmp_path / "out" / "a.vptk" / "mine").write_text("precious")
    assert_error(export("--json"), 2, "a.vptk: exists already", "--force")
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
    assert_error(result, 2, "No space left on device")
    assert names(tmp_path / "out") == set()


SLOW_EXPORT = """
import sys, time
from pathlib import Path
from vptkit import cli
from vptkit.export import pipeline

mark = Path(sys.argv.pop(1))
pipeline.write_manifest = lambda *_: (mark.touch(), time.sleep(60))
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
        assert len(names(tmp_path / "out")) == 1  # the temporary folder
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
