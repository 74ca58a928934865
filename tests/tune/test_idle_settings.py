import pytest

from vptkit.errors import VptkitError
from vptkit.tune.config import TuneConfig, config_from_mapping
from vptkit.tune.idle_settings import idle_settings, without_idle


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ln", {"prompts": 5}),
        ("ln", {"prompts": 20}),  # the usual value, given in vain
        ("ln", {"form": "fwhiten"}),
        ("ln", {"lr": 0.1}),
        ("ln", {"insert": "shallow"}),
        ("ln", {"dropout": 0.0}),
        ("ln", {"whiten_images": 5}),
        ("ln", {"head_epochs": 5}),
        ("ln", {"cycles": 1, "epochs": 5}),
        ("vpt", {"form": "fwhiten"}),
        ("vpt", {"rank": 4}),
        ("vpt", {"lr_ln": 0.1}),
        ("bpt", {"form": "fwhiten", "rank": 4}),
        ("bpt", {"form": "twhiten", "b_init": "random"}),
        ("bpt", {"b_init": "random", "whiten_images": 9}),
        ("bpt", {"insert": "shallow", "tune_b_last": 2}),
        ("ln+bpt", {"crop_scale": 0.3}),
        ("vpt", {"lora_rank": 4}),
        ("ln", {"lora_targets": "q,v"}),
        ("auto", {"lr_lora": 0.1}),
        ("lora", {"prompts": 5}),
        ("lora", {"lr": 0.1}),
        ("lora", {"lr_ln": 0.1}),
        ("ln", {"wd": 0.1}),
        ("linear", {"prompts": 5}),
        ("linear", {"epochs": 5}),
        ("linear", {"lr_head": 0.1}),
        ("linear", {"head_init": "zero"}),
        ("linear", {"patience": 3}),
        ("auto", {"form": "fwhiten"}),
        ("auto", {"crop_scale": 0.3}),
    ],
    ids=str,
)
def test_what_would_do_nothing_is_refused_by_name(method, settings):
    *_, (key, value) = settings.items()
    key, value = ("epochs", 5) if "epochs" in settings else (key, value)
    wanted = rf"{key} is {value}, which does nothing with method .*: it is for "
    with pytest.raises(VptkitError, match=wanted):
        config_from_mapping({"backbone": "vit", "method": method, **settings})


def test_python_callers_are_asked_by_the_values_that_are_unusual():
    with pytest.raises(VptkitError, match="prompts is 5, which does nothing with method ln"):
        TuneConfig(backbone="vit", method="ln", prompts=5)
    TuneConfig(backbone="vit", method="ln", prompts=20)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ln", "lr_ln": 0.1, "epochs": 3, "batch_size": 4, "warmup": 0},
        {"method": "ln", "cycles": 1, "head_epochs": 2, "ln_epochs": 2},
        {"method": "ln+vpt", "prompts": 5, "lr": 0.1, "lr_ln": 0.1},
        {"method": "lora", "lora_rank": 4, "lora_alpha": 4, "lora_targets": "all", "wd": 0.1},
        {"method": "ln+lora+vpt", "lr_lora": 0.1, "lr_ln": 0.1, "lr": 0.1, "prompts": 3},
        {"method": "bpt", "rank": 4, "b_init": "random", "tune_b_last": 1},
        {"method": "bpt", "form": "fwhiten", "whiten_images": 9, "tap": "post_ln1"},
        {"method": "linear", "augment": "crop", "crop_scale": 0.3, "class_weights": "balanced"},
        {"method": "auto", "prompts": 5, "lr_ln": 0.1, "insert": "shallow"},
        {"method": "auto", "budget": "1h", "form": "fwhiten", "whiten_images": 9},
    ],
    ids=str,
)
def test_what_matters_is_taken(settings):
    config_from_mapping({"backbone": "vit", **settings})


def test_settings_for_several_methods_are_told_apart():
    given = {"method": "ln", "prompts": 5, "epochs": 3, "lr_ln": 0.1}
    assert without_idle(given) == {"method": "ln", "epochs": 3, "lr_ln": 0.1}


def test_every_rule_names_settings_that_there_are():
    known = set(TuneConfig.__dataclass_fields__)
    for method in ("linear", "ln", "vpt", "bpt", "lora", "auto"):
        assert set(idle_settings({"method": method})) <= known
