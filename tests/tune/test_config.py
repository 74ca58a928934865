"""Settings: every number is checked, and the error says which, what came, what was expected."""

from __future__ import annotations

import signal
import sys
from dataclasses import fields
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import vptkit.tune  # noqa: E402
from vptkit.cli import entry  # noqa: E402
from vptkit.errors import VptkitError  # noqa: E402
from vptkit.tune import TuneConfig, TuneResult, config_from_mapping  # noqa: E402


def refusal(**values) -> str:
    with pytest.raises(VptkitError) as caught:
        config_from_mapping({"backbone": "vit", **values})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults():
    config = config_from_mapping({"backbone": "vit"})
    assert config == TuneConfig(backbone="vit")
    assert (config.method, config.insert, config.prompts) == ("auto", "deep", 20)
    assert config.rates[0] > 0
    assert config.rates[1] > 0


def test_settings_of_a_candidate_are_settings_of_auto():
    config_from_mapping({"backbone": "vit", "prompts": 10, "lr": 1e-2, "lr_ln": 1e-3})
    assert "rank is 5, which does nothing with method auto" in refusal(rank=5)
    config_from_mapping({"backbone": "vit", "rank": 5, "budget": "10m"})  # bpt is tried, too


def test_no_backbone():
    with pytest.raises(VptkitError, match="pass --backbone NAME"):
        config_from_mapping({"method": "vpt"})


def test_an_unknown_key_is_named():
    message = refusal(learning_rate=0.1, bacth_size=3)
    assert "unknown 'bacth_size': batch_size?, 'learning_rate'; known are accumulate, " in message
    assert refusal(epoch=3).endswith("unknown 'epoch': epochs?")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", "ten", "int"),
        ("epochs", 1.5, "int"),
        ("epochs", True, "int"),
        ("lr", "fast", "float"),
        ("lr", True, "float"),
        ("warmup", [0.1], "float"),
        ("name", 3, "str"),
        ("backbone", 3, "str"),
        ("backbone_args", "img_size=32", "dict"),
        ("seed", None, "int"),
    ],
)
def test_a_wrong_type_is_named(key, value, expected):
    message = refusal(**{key: value})
    assert f"{key} is {value!r}, expected {expected}" in message


@pytest.mark.parametrize("value", [3, True, ["a"]])
def test_weights_must_be_a_path(value):
    assert f"weights is {value!r}" in refusal(weights=value)
    assert f"full_data is {value!r}" in refusal(full_data=value)


@pytest.mark.parametrize("method", ["bpt", "vpt", "linear"])
@pytest.mark.parametrize(
    "setting", [{"cycles": 2}, {"rescale": "beta"}, {"refit_epochs": 1}, {"full_data": "d"}]
)
def test_settings_of_layer_norms_want_a_method_that_tunes_them(method, setting):
    (key, value), *_ = setting.items()
    message = refusal(method=method, **setting)
    assert f"{key} is {value}, but method {method} tunes no LayerNorms" in message
    config_from_mapping({"backbone": "vit", "method": "ln", **setting})


@pytest.mark.parametrize("method", ["ln", "bpt", "vpt", "lora", "ln+bpt", "ln+vpt"])
def test_the_whole_line_is_for_every_method_that_has_one(method):
    values = {"backbone": "vit", "rescale": "all"}
    assert config_from_mapping({**values, "method": method}).to_json()["rescale"] == "all"
    wanted = "rescale is all, but method linear tunes nothing behind its probe"
    assert wanted in refusal(method="linear", rescale="all")


def test_patience_does_not_end_cycles():
    """It would end the run in its first head phase, before any norm has moved."""
    message = refusal(method="ln", cycles=2, patience=3)
    assert "patience is 3, but with cycles a run ends by itself" in message
    config_from_mapping({"backbone": "vit", "method": "ln", "patience": 3})


@pytest.mark.parametrize("cycles", [0, 2])
def test_rates_of_layer_norm_methods(cycles):
    def rates(**values):
        config = config_from_mapping({"backbone": "vit", "method": "ln", **values})
        return config.rates[1], config.rate_of_norms

    assert rates(cycles=cycles) == (1e-4, 1e-2)
    assert rates(cycles=cycles, head_init="zero") == (5e-3, 1e-3)
    assert rates(cycles=cycles, lr_head=0.5, lr_ln=0.25) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("ln", {"ln"}),
        ("ln+bpt", {"ln", "bpt"}),
        ("ln+vpt", {"ln", "vpt"}),
        ("lora", {"lora"}),
        ("ln+lora+vpt", {"ln", "lora", "vpt"}),
        ("linear", set()),
    ],
)
def test_parts_of_a_method(method, parts):
    config = config_from_mapping({"backbone": "vit", "method": method})
    assert {part for part in ("ln", "lora", "bpt", "vpt") if config.learns(part)} == parts
    assert config.prompted == bool(parts - {"ln", "lora"})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "method",
            "dora",
            "ln, vpt, bpt, lora, ln+vpt, ln+bpt, ln+lora, lora+vpt, lora+bpt, ln+lora+vpt",
        ),
        ("method", "bpt+ln", "ln+bpt"),
        ("rescale", "alpha", "none, gamma, beta, both, all"),
        ("insert", "none", "deep, shallow"),
        ("form", "free", "bilinear, fwhiten, twhiten"),
        ("b_init", 3, "random, whiten"),
        ("compat", "repo", "paper, released"),
        ("tap", "ln", "pre_ln1, post_ln1"),
        ("pool", "max", "model, token, avg, token+avg, avg_prompts, map"),
        ("norm", "none", "model, before_pool, after_pool"),
        ("augment", ["flip"], "none, flip, crop"),
        *((key, 0, "at least 1") for key in ("prompts", "rank", "epochs", "batch_size", "golden")),
        *((key, 0, "at least 1") for key in ("head_epochs", "ln_epochs", "lora_rank")),
        *((key, 0.0, "a positive number") for key in ("lr_lora", "lora_alpha")),
        ("cycles", -1, "0 or more"),
        ("refit_epochs", -1, "0 or more"),
        ("lr_ln", 0.0, "a positive number"),
        ("whiten_images", -3, "at least 1"),
        *((key, 0.0, "a positive number") for key in ("lr", "lr_head", "whiten_floor")),
        ("lr", float("nan"), "a positive number"),
        ("lr", 1e38, "below 1e30"),
        ("wd", 1e38, "below 1e30"),
        ("seed", 2**63, "below 2^63"),
        ("lr_head", float("inf"), "a positive number"),
        *((key, -0.1, "0 or more") for key in ("wd", "wd_head", "clip")),
        ("seed", -1, "0 or more"),
        ("tune_b_last", -1, "0 or more"),
        *((key, 1.0, "a share in [0, 1)") for key in ("warmup", "val_share", "test_share")),
        ("dropout", 1.0, "a share in [0, 1)"),
        ("val_share", -0.1, "a share in [0, 1)"),
        ("crop_scale", 0.0, "a share in (0, 1]"),
        ("crop_scale", 1.1, "a share in (0, 1]"),
    ],
)
def test_a_value_out_of_range_is_named(key, value, expected):
    message = refusal(**{key: value})
    assert f"{key} is {value!r}" in message
    assert expected in message


def test_all_problems_are_named_at_once():
    message = refusal(epochs=0, method="x", lr=-1)
    assert all(part in message for part in ("epochs is 0", "method is 'x'", "lr is -1.0"))


def test_every_number_has_a_range():
    """A setting that is added later must be checked, too."""
    from vptkit.tune import config as module

    ranged = {key for keys, _, _ in module._RANGES for key in keys.split()}
    free = {"backbone", "backbone_args", "weights", "name", "full_data", "device", "compile"}
    free |= {"recompute", "tensorboard"}
    free |= {"skip_broken", "strict", "columns", "allow_chance", "allow_outside"}
    free |= {"budget", "lora_targets"}  # texts, read by `auto.budget` and `lora_targets`
    free |= {"merge"}  # read by `backbones.merge_schedule`
    assert {f.name for f in fields(TuneConfig)} == ranged | set(module._CHOICES) | free


def test_whole_numbers_serve_as_shares():
    config = config_from_mapping({"backbone": "vit", "method": "bpt", "lr": 1, "dropout": 0})
    assert (config.lr, config.dropout) == (1.0, 0.0)
    assert isinstance(config.lr, float)


@pytest.mark.parametrize(
    ("settings", "dropout"),
    [
        ({"method": "vpt"}, 0.1),
        ({"method": "vpt", "insert": "shallow"}, 0.0),
        ({"method": "bpt"}, 0.0),
        ({"method": "vpt", "dropout": 0.3}, 0.3),
        ({"method": "vpt", "dropout": 0.0}, 0.0),
    ],
)
def test_dropout_of_the_papers(settings, dropout):
    assert config_from_mapping({"backbone": "vit", **settings}).prompt_dropout == dropout


def test_what_decides_the_result_is_written_down():
    config = config_from_mapping({"backbone": "vit", "weights": "x", "name": "n"})
    document = config.to_json()
    free = {"weights", "name", "full_data", "device", "compile", "accumulate", "recompute"}
    free |= {
        "allow_chance",
        "allow_outside",
        "skip_broken",
        "strict",
        "columns",
        "pictures",
        "tensorboard",
    }
    free |= {"merge", "merge_attention"}  # where nothing is merged
    free |= {"task"}  # of one label an image it is as if there were no other; see `to_json`
    assert {f.name for f in fields(TuneConfig)} - set(document) == free
    assert None not in (document["lr"], document["lr_head"], document["dropout"])


# ---- TOML and command line ----------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    """A function that runs `vptkit tune` with the training left out: (code, config, error)."""

    def run(*arguments: object):
        seen = []

        def fake(data: Path, output: Path, config: TuneConfig, **others: object) -> TuneResult:
            seen.append(config)
            return TuneResult(
                adapter=output,
                trainable=1,
                trainable_prompts=0,
                best_epoch=1,
                val_top1=1.0,
                test_top1=None,
                seconds=0.0,
                device="cpu",
                metrics=output,
            )

        monkeypatch.setattr(vptkit.tune, "tune", fake)
        monkeypatch.setattr(
            sys, "argv", ["vptkit", "tune", "data", "-o", "x.safetensors", *map(str, arguments)]
        )
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            entry.main()
        signal.signal(signal.SIGTERM, before)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return int(caught.value.code or 0), (seen or [None])[0], err

    return run


def test_options_become_settings(command):
    code, config, _ = command(
        *("--backbone", "vit", "--method", "vpt", "--prompts", 7, "--lr", "1e-2", "--seed", 5),
        *("--image-size", 48, "--weights", "w.safetensors", "--wd-head", 0.5, "--name", "n"),
    )
    assert code == 0
    assert config == TuneConfig(
        backbone="vit",
        method="vpt",
        prompts=7,
        lr=1e-2,
        seed=5,
        backbone_args={"img_size": 48},
        weights=Path("w.safetensors"),
        wd_head=0.5,
        name="n",
    )


def test_recompute_is_an_option_and_a_key_of_a_file(command, tmp_path):
    file = tmp_path / "f.toml"
    file.write_text('backbone = "vit"\nmethod = "vpt"\nrecompute = true\n')
    assert command("--config", file)[1].recompute is True
    assert command("--backbone", "vit", "--recompute")[1].recompute is True
    assert command("--backbone", "vit")[1].recompute is False
    code, _, err = command("--config", file, "--method", "linear")
    assert (code, "recompute is True, which does nothing with method linear" in err) == (2, True)
    file.write_text('backbone = "vit"\nrecompute = "yes"\n')
    assert "recompute is 'yes', expected bool" in command("--config", file)[2]


def test_every_setting_is_an_option():
    import inspect

    from vptkit.cli.tune_commands import tune

    options = set(inspect.signature(tune.tune).parameters)
    assert {f.name for f in fields(TuneConfig)} - options == {"backbone_args"}


def test_the_command_line_goes_over_the_file(command, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'backbone = "vit"\nmethod = "bpt"\nepochs = 7\nlr = 1\nprompts = 9\n'
        "[backbone_args]\nimg_size = 64\npatch_size = 8\n"
    )
    code, config, _ = command("--config", file, "--epochs", 3)
    assert (code, config.epochs, config.lr, config.prompts) == (0, 3, 1.0, 9)
    assert config.backbone_args == {"img_size": 64, "patch_size": 8}
    _, config, _ = command("--config", file, "--image-size", 32, "--backbone", "other")
    assert config.backbone_args == {"img_size": 32, "patch_size": 8}
    assert config.backbone == "other"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("epochs = ", ("run.toml", "not valid TOML")),
        ('backbone = "vit"\nepoch = 3', ("unknown 'epoch': epochs?",)),
        ('backbone = "vit"\nepochs = "3"', ("epochs is '3', expected int",)),
        ('backbone = "vit"\nlr = nan', ("lr is nan",)),
        ('backbone = "vit"\nweights = 3', ("weights is 3",)),
        ("epochs = 3", ("--backbone",)),
    ],
)
def test_a_bad_file(command, tmp_path, text, parts):
    (tmp_path / "run.toml").write_text(text)
    code, config, err = command("--config", tmp_path / "run.toml")
    assert (code, config) == (2, None)
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert all(part in line for part in parts)


def test_a_bad_table_with_an_image_size(command, tmp_path):
    (tmp_path / "run.toml").write_text('backbone = "vit"\nbackbone_args = "x"')
    code, _, err = command("--config", tmp_path / "run.toml", "--image-size", 32)
    assert code == 2
    assert "backbone_args is 'x'" in err


def test_no_such_file_and_bad_options(command, tmp_path):
    code, _, err = command("--config", tmp_path / "none.toml")
    assert code == 2
    assert "none.toml: no such file" in err
    code, _, err = command("--backbone", "vit", "--epochs", "0")
    assert code == 2
    assert "epochs is 0, expected at least 1" in err
    code, _, err = command("--backbone", "vit", "--epochs", "x")
    assert code == 2
