"""`vptkit tune` from outside: documents, one line of error, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import zlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from safetensors.torch import load_file, save_file  # noqa: E402

from tests.support.children import PIPE, Child  # noqa: E402
from tests.support.tuned_inputs import (  # noqa: E402, F401 -- a fixture among them
    MAIN,
    assert_only_error,
    make_folders,
    make_weights,
    names,
    no_space,
    one_thread,
    wait_for,
)
from vptkit.cli.tune_commands.tune import tune as tune_command  # noqa: E402
from vptkit.errors import MissingExtraError, VptkitError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune.idle_settings import idle_settings  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tune(vptkit, inputs, tmp_path):
    """A function: `vptkit tune` with the settings of run.toml, into tmp_path/out/."""
    (tmp_path / "out").mkdir()

    def run(*arguments: object, data: Path | None = None) -> tuple[int, str, str]:
        settings = tmp_path / "of-method.toml"
        text = (inputs / "run.toml").read_text().splitlines()
        method = arguments[arguments.index("--method") + 1] if "--method" in arguments else "bpt"
        idle = idle_settings({"method": method})
        settings.write_text("\n".join(line for line in text if line.split(" ")[0] not in idle))
        return vptkit(
            *("tune", data or inputs / "data", "-o", tmp_path / "out" / "a.safetensors"),
            *("--config", settings, "--weights", inputs / "weights.safetensors"),
            *arguments,
        )

    return run


@pytest.mark.parametrize("method", ["bpt", "vpt", "linear"])
def test_tune(tune, tmp_path, method):
    code, out, err = tune("--method", method, "--json")
    assert code == 0, err
    document = json.loads(out)  # one document and nothing else
    assert document["adapter"] == str(tmp_path / "out" / "a.safetensors")
    wanted = {"adapter", "trainable", "trainable_prompts", "val_top1", "test_top1", "seconds"}
    assert wanted <= set(document)
    assert "data: 3 classes (blue, green, red), train " in err
    assert " learned (" in err
    assert "Traceback" not in err
    assert names(tmp_path / "out") == {"a.safetensors", "a.metrics.jsonl", "a.html"}
    assert read_adapter(tmp_path / "out" / "a.safetensors").method == method


def test_tune_prints_for_people(tune):
    code, out, _ = tune()
    assert code == 0
    lines = out.splitlines()
    assert "cross-validation" in lines[0]  # of few images
    assert "95 % interval" in lines[0]
    assert any(line.startswith("wrote ") and "a.safetensors (" in line for line in lines)
    assert lines[-1].startswith("next: vptkit export ")
    assert lines[-1].endswith(".vptk")
    assert "val_top1" not in out


def test_every_number_is_for_those_who_ask(tune):
    out = tune("--verbose", "--method", "linear")[1]
    assert "val_top1" in out
    assert "trainable_prompts" not in out
    assert not [line for line in out.splitlines() if line.endswith(" -")]


def test_the_adapter_is_called_after_the_data(vptkit, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ("--config", inputs / "run.toml", "--weights", inputs / "weights.safetensors")
    assert vptkit("tune", inputs / "data", *common)[0] == 0
    assert (tmp_path / "data.safetensors").is_file()
    assert_only_error(
        vptkit("tune", inputs / "data", *common), 2, "data.safetensors: exists already"
    )


def test_a_page_that_cannot_be_drawn_is_a_note(tune, monkeypatch):
    def missing(_: object) -> str:
        raise MissingExtraError("jinja2", "report", "the page of the training")

    monkeypatch.setattr("vptkit.tune.training_page.run_pictures.page_text", missing)
    code, out, err = tune("--method", "linear", "--json")
    assert code == 0
    assert err.count("note: the page of the training needs the package jinja2, which is not") == 1
    assert json.loads(out)["page"] is None


def test_nobody_but_the_user_says_where_logs_go(tune, vptkit, inputs, tmp_path):
    text = (inputs / "run.toml").read_text()
    (tmp_path / "stranger.toml").write_text(f'tensorboard = "/etc"\n{text}')
    told = vptkit("tune", inputs / "data", "--config", tmp_path / "stranger.toml")
    assert_only_error(told, 2, "tensorboard is not for a file to say: pass --tensorboard")
    assert_only_error(
        tune("--pictures", "gif"), 2, "pictures is 'gif'", "page, png, svg, pdf, none"
    )
    code, _, err = tune("--method", "linear", "--pictures", "none", "--tensorboard", tmp_path / "t")
    assert code == (0 if find_spec("tensorboard") else 5), err
    if not code:
        assert names(tmp_path / "out") == {"a.safetensors", "a.metrics.jsonl"}
        assert {name[:19] for name in names(tmp_path / "t")} == {"events.out.tfevents"}


def test_an_image_size_of_no_whole_patches(tune):
    assert_only_error(tune("--image-size", 36), 2, "36 is no multiple of the patch, 8: 32 or 40")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--method", "dora"), ("method is 'dora'", "ln, vpt, bpt, lora, ln+vpt")),
        (("--method", "lora", "--lora-targets", "x"), ("lora_targets is 'x'", "q, k, v, proj")),
        (("--epochs", "0"), ("epochs is 0", "at least 1")),
        (("--lr", "-1"), ("lr is -1.0",)),
        (("--backbone", "vit_of_mine"), ("vit_of_mine: timm has no model of this name",)),
        (("--backbone", "resnet18"), ("resnet18",)),
        (("--image-size", "-8"), ("img_size is -8", "a whole number from 1")),
        (("--pool", "map"), ("no attention pooling",)),
        (("--rank", "99", "--b-init", "whiten"), ("rank 99", "width 32")),
    ],
)
def test_tune_with_bad_settings(tune, tmp_path, arguments, parts):
    assert_only_error(tune(*arguments, "--json"), 2, *parts)
    assert names(tmp_path / "out") == set()


def test_tune_with_an_unsupported_feature(tune, inputs, tmp_path):
    weights = make_weights(tmp_path / "w.safetensors", act_layer="relu")
    text = (inputs / "run.toml").read_text().replace("{ img", '{ act_layer = "relu", img')
    (tmp_path / "q.toml").write_text(text)
    result = tune("--config", tmp_path / "q.toml", "--weights", weights)
    assert_only_error(result, 2, "vit_tiny_patch16_224", "not supported yet", "act_layer=ReLU")
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
    assert_only_error(
        result, 2, "could not be fetched", "other means", "--weights model.safetensors"
    )
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
    elif damage == "no train":
        (folder / "train").rename(folder / "somewhere")
        make_folders(folder / "test", 4)
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
        ("no train", ("no train/",)),
        ("unreadable", ("train/green/1.png", "not an image")),
        ("truncated", ("train/green/1.png", "broken")),
        ("10000", ("train/green/1.png", "bomb")),
        ("30000", ("train/green/1.png", "bomb")),
    ],
)
def test_tune_on_bad_data(tune, inputs, tmp_path, damage, parts):
    assert_only_error(tune(data=edited(inputs, tmp_path / "d", damage)), 2, *parts)
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
    assert_only_error(tune("--weights", path), 2, "w.safetensors")
    assert names(tmp_path / "out") == set()


def test_tune_does_not_overwrite(tune, tmp_path):
    (tmp_path / "out" / "a.safetensors").write_bytes(b"precious")
    assert_only_error(tune("--json"), 2, "a.safetensors: exists already", "--force")
    assert (tmp_path / "out" / "a.safetensors").read_bytes() == b"precious"
    assert tune("--force", "--json")[0] == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_tune_interrupted_and_resumed(tune, tmp_path, monkeypatch, sent):
    from vptkit.tune.phases import phased_training as module

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

    assert_only_error(tune("--epochs", 3), 2, "--resume", "--force")
    assert_only_error(tune("--epochs", 4, "--resume"), 2, "config.epochs was 3, is 4")
    code, out, _ = tune("--epochs", 3, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["best_epoch"] <= 3


def test_tune_with_a_full_disk(tune, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        result = tune()
    assert_only_error(result, 2, "No space left on device")
    assert names(tmp_path / "out") == set()


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


def test_what_is_given_goes_over_the_file(inputs, tmp_path):
    """The file alone would do: the refusal is of the number that was passed beside it."""
    for given, message in (({"rank": 0}, "rank is 0"), ({"epochs": -1}, "epochs is -1")):
        with pytest.raises(VptkitError, match=message):
            tune_command(
                inputs / "data", tmp_path / "a.safetensors", config=inputs / "run.toml", **given
            )
    assert not list(tmp_path.iterdir())


def test_a_file_of_settings_does_not_say_what_may_be_read(inputs, tmp_path):
    text = (inputs / "run.toml").read_text()
    (tmp_path / "stranger.toml").write_text("allow_outside = true\n" + text)
    with pytest.raises(
        VptkitError, match=r"stranger\.toml: allow_outside is not for a file to say"
    ):
        tune_command(inputs / "data", tmp_path / "a.safetensors", config=tmp_path / "stranger.toml")


# weights as others publish them ----------------------------------------------------------------------


@pytest.fixture
def published(inputs, tmp_path):
    """The same weights as a training script keeps them, in a folder that names their backbone."""
    state = load_file(inputs / "weights.safetensors")
    folder = tmp_path / "published"
    folder.mkdir()
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model_ema": wrapped, "model": {}, "epoch": 3}, folder / "mae.pth")
    own = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "crop_pct": 1.0}
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    config = {"architecture": "vit_tiny_patch16_224", "model_args": args, "pretrained_cfg": own}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.long
def test_weights_of_a_training_script(tune, vptkit, published, tmp_path):
    """In a container, with a prefix: tuned, exported without torch's help, and checked."""
    weights, out = published / "mae.pth", tmp_path / "out"
    code, _, err = tune("--method", "linear", "--weights", weights)
    assert code == 0
    line = "weights: mae.pth: timm's names, under 'model_ema', the prefix 'module.' taken off"
    assert line in " ".join(err.split())
    noted = read_adapter(out / "a.safetensors").train["weights"]
    assert (noted["container"], noted["prefix"]) == ("model_ema", "module.")
    code, _, err = vptkit(
        "export", out / "a.safetensors", "--weights", weights, "-o", out / "a.vptk"
    )
    assert code == 0, err
    code, _, err = vptkit("check", out / "a.vptk", "--reference", "--weights", weights)
    assert code == 0, err


def hugging_face_names(state):
    """A plain ViT of timm, as transformers' files name it."""
    found = {}
    for name, value in state.items():
        short = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        for ours, theirs in (
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("blocks.", "encoder.layer."),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            short = short.replace(ours, theirs)
        if short.startswith("norm."):
            short = f"layer{short}"
        if "attn.qkv" in short:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                whole = short.replace("attn.qkv", f"attention.attention.{part}")
                found[f"vit.{whole}"] = piece.clone()
        elif not short.startswith("head"):
            found[f"vit.{short}"] = value
    return found


@pytest.mark.long
def test_the_epsilon_of_the_publisher_survives_the_way(tune, vptkit, inputs, tmp_path):
    """From transformers' names through adapter and export to the reference's answers."""
    weights, out = tmp_path / "vit.safetensors", tmp_path / "out"
    save_file(hugging_face_names(load_file(inputs / "weights.safetensors")), weights)
    code, _, err = tune("--method", "ln", "--allow-chance", "--weights", weights)
    assert code == 0, err
    adapter = read_adapter(out / "a.safetensors")
    assert adapter.backbone.args["norm_eps"] == adapter.backbone.spec.norm_eps == 1e-12
    assert adapter.train["weights"]["names"] == "Hugging Face"
    code, _, err = vptkit(
        "export", out / "a.safetensors", "--weights", weights, "-o", out / "a.vptk"
    )
    assert code == 0, err
    manifest = json.loads((out / "a.vptk" / "manifest.json").read_text())
    assert manifest["backbone"]["args"]["norm_eps"] == 1e-12
    code, _, err = vptkit("check", out / "a.vptk", "--reference", "--weights", weights)
    assert code == 0, err


@pytest.mark.slow
def test_a_folder_of_weights_names_its_backbone(vptkit, inputs, published, tmp_path):
    """No --backbone: name, arguments, mean and deviation are those of its documents."""
    command = ("tune", inputs / "data", "--weights", published, "--method", "linear")
    code, _, err = vptkit(*command, "-o", tmp_path / "a.safetensors", "--image-size", 16)
    assert code == 0, err
    said = " ".join(err.split())
    assert "backbone: vit_tiny_patch16_224, img_size 16, patch_size 8" in said
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert adapter.backbone.args["embed_dim"] == 32
    assert adapter.preprocess.std == (0.25, 0.5, 0.5)
    assert adapter.preprocess.size == (16, 16)


def test_a_file_that_names_no_backbone(vptkit, inputs, tmp_path):
    command = ("tune", inputs / "data", "--weights", inputs / "weights.safetensors")
    result = vptkit(*command, "-o", tmp_path / "a.safetensors")
    assert_only_error(result, 2, "pass --backbone NAME")


@pytest.mark.slow
def test_paths_in_a_file_of_settings_hold_from_its_folder(vptkit, inputs, tmp_path, monkeypatch):
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "w.safetensors").write_bytes((inputs / "weights.safetensors").read_bytes())
    text = (inputs / "run.toml").read_text().splitlines()
    idle = idle_settings({"method": "linear"})
    idle = {*idle, "method", "weights"}
    lines = [line for line in text if line.split(" ")[0] not in idle]
    lines = ['weights = "w.safetensors"', 'method = "linear"', *lines]
    (settings / "run.toml").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    command = ("tune", inputs / "data", "--config", "settings/run.toml", "-o", "a.safetensors")
    code, _, err = vptkit(*command)
    assert code == 0, err
    # an option's path holds from where the command was typed
    assert_only_error(vptkit(*command, "--force", "--weights", "w.safetensors"), 2, "w.safetensors")
