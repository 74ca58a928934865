"""A training with merged tokens: each method, the file it writes, resuming, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.support.merging_models import ROTARY, tiny_model  # noqa: E402
from tests.support.tolerances import PARITY_FP32  # noqa: E402
from vptkit.errors import BackboneError, DataError, VptkitError  # noqa: E402
from vptkit.export.bundle.export_bundle import export  # noqa: E402
from vptkit.formats.adapter import FORMAT_WITH_MERGING, read_adapter  # noqa: E402
from vptkit.formats.tensor_file import read_tensor_file, write_tensors  # noqa: E402
from vptkit.runtime import open_session  # noqa: E402
from vptkit.tune import config_from_mapping  # noqa: E402
from vptkit.tune.backbone.reference import reference_logits  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import spec_from_model  # noqa: E402
from vptkit.tune.backbone.timm_backbone import preprocess_of  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.methods.tuned_model import Tuned, merging_of  # noqa: E402
from vptkit.tune.phases.whiten_from_images import whitening_matrices  # noqa: E402
from vptkit.tune.run.tune_run import tune  # noqa: E402

METHODS = {
    "linear": {"method": "linear"},
    "ln": {"method": "ln", "pool": "avg"},
    "shallow": {"method": "vpt", "insert": "shallow"},
    "bpt": {"method": "ln+bpt", "head_init": "zero", "pool": "avg_prompts"},
    "lora": {"method": "lora", "merge_attention": "plain"},
}


class StopError(Exception):
    pass


def stopping(_):
    raise StopError


@pytest.mark.parametrize("name", METHODS)
def test_the_file_says_how_it_was_tuned_and_the_reference_does_so(
    splits, make_config, weights, tmp_path, name
):
    config = make_config(**METHODS[name], merge=5)
    adapter = read_adapter(tune(splits, tmp_path / "a.safetensors", config).adapter)
    assert adapter.format == FORMAT_WITH_MERGING
    assert adapter.merging.to_json() == {"schedule": [5, 0], "attention": config.merge_attention}
    images, logits = adapter.golden()
    np.testing.assert_array_equal(reference_logits(adapter, weights, images), logits)
    plain = reference_logits(replace(adapter, merging=None), weights, images)
    assert np.abs(plain - logits).max() > 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("name", METHODS)
def test_training_computes_what_the_file_means(splits, make_config, make_vit, name):
    """Logits of the model in training are those of its adapter, and features are merged, too."""
    settings = {**METHODS[name], "method": METHODS[name]["method"].replace("ln+bpt", "ln+vpt")}
    config, model = make_config(**settings, merge=6), make_vit()
    spec = spec_from_model(model, "vit")
    tuned = Tuned(model, spec, config, 3, None).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        merged = tuned.features(pixels), tuned.frozen_features(pixels)
        tuned.merging = None
        for found, plain in zip(
            merged, (tuned.features(pixels), tuned.frozen_features(pixels)), strict=True
        ):
            assert (found - plain).abs().max() > 1e-3


def test_a_killed_training_goes_on_to_the_same_bytes(splits, make_config, tmp_path):
    config = make_config(method="ln+vpt", merge=[4, 0])
    whole = tune(splits, tmp_path / "a.safetensors", replace(config, name="n"))
    output = tmp_path / "b.safetensors"
    with pytest.raises(StopError):
        tune(splits, output, replace(config, name="n"), on_epoch=stopping)
    for other in ({"merge": 3}, {"merge": 0}, {"merge_attention": "plain"}):
        with pytest.raises(DataError, match=r"belongs to another run.*merge"):
            tune(splits, output, replace(config, **other), resume=True)
    resumed = tune(splits, output, replace(config, name="n"), resume=True)
    assert resumed.adapter.read_bytes() == whole.adapter.read_bytes()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("axial, pairs", "bpt"), ("centered, halves", "lora"), ("mixed", "shallow")],
)
def test_rotary_backbones_learn_what_the_graph_computes(splits, make_config, tmp_path, kind, name):
    weights = tmp_path / "weights.safetensors"
    model = tiny_model(ROTARY[kind])
    write_tensors(weights, {k: v.float().numpy() for k, v in model.state_dict().items()})
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    config = make_config(
        **METHODS[name] | {"pool": "avg"},
        backbone=ROTARY[kind],
        backbone_args=shape,
        weights=weights,
        epochs=1,
        merge=3,
    )
    path = tune(splits, tmp_path / "a.safetensors", config).adapter
    adapter = read_adapter(path)
    images, logits = adapter.golden()
    np.testing.assert_array_equal(reference_logits(adapter, weights, images), logits)
    plain = reference_logits(replace(adapter, merging=None), weights, images)
    assert np.abs(plain - logits).max() > 1e-4 * np.abs(logits).max()
    export(path, tmp_path / "a.vptk", weights=weights)
    found = open_session(tmp_path / "a.vptk", threads=1).run(images)
    assert np.abs(found - logits).max() <= PARITY_FP32 * np.abs(logits).max()


def test_whitening_sees_the_tokens_that_are_left(splits, make_config, make_vit):
    config = make_config(form="fwhiten", merge=6)
    model = make_vit()
    spec = spec_from_model(model, "vit")
    merging = merging_of(spec, config)
    _, images = load_splits(splits, 0, 0.15, 0.15)
    data = DataSet(images["train"], preprocess_of(model))
    plain, _ = whitening_matrices(model, data, config)
    merged, _ = whitening_matrices(model, data, config, merging)
    torch.testing.assert_close(merged[0], plain[0])  # of block 0, before anything is merged
    assert not torch.allclose(merged[1], plain[1])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"merge": [1, 2, 0]}, "merge has 3 numbers, expected one for each of 2 blocks"),
        ({"merge": "1,1"}, "last block"),
        ({"pool": "avg", "merge": "0,7"}, "last block"),
    ],
)
def test_schedules_that_do_not_fit_are_refused_before_images_are_read(
    splits, make_config, tmp_path, monkeypatch, settings, told
):
    monkeypatch.setattr("vptkit.tune.run.tune_run.read_images", lambda *_: pytest.fail("read"))
    with pytest.raises(VptkitError, match=told):
        tune(splits, tmp_path / "a.safetensors", make_config(method="ln", **settings))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("beit_base_patch16_224", {}, "relative positions"),
        ("vit_relpos_small_patch16_224", {}, "relative positions"),
    ],
)
def test_backbones_that_cannot_merge_are_named(make_vit, make_config, name, arguments, told):
    try:
        model = make_vit(name, **arguments)
    except RuntimeError as error:  # an older timm
        pytest.skip(str(error))
    spec = spec_from_model(model, name)
    with pytest.raises(BackboneError, match=f"{told}.*leave --merge away"):
        merging_of(spec, make_config(method="ln", merge=2))


@pytest.mark.parametrize("merge", [0, "0", "0,0", [0, 0], []])
def test_nothing_to_merge_is_no_merging(merge, make_config, splits, tmp_path):
    if merge == []:
        with pytest.raises(VptkitError, match="merge is"):
            make_config(method="ln", merge=merge)
        return
    config = make_config(method="linear", merge=merge)
    assert config.merge == 0
    assert "merge" not in config.to_json()


@pytest.mark.parametrize("merge", [True, 1.5, None, "x", [1, "2"], [True, 0], -1, {"a": 1}])
def test_what_is_no_schedule_is_refused(merge, make_config):
    with pytest.raises(VptkitError, match="merge is"):
        make_config(method="ln", merge=merge)


def test_settings_come_back_from_a_file(make_config):
    config = make_config(method="ln", merge=(3, 0), merge_attention="plain")
    again = json.loads(json.dumps(config.to_json()))
    assert (again["merge"], again["merge_attention"]) == ("3,0", "plain")
    assert config_from_mapping({"backbone": "vit", "merge": again["merge"]}).merge == "3,0"
    with pytest.raises(VptkitError, match=r"merge_attention is plain.*trainings with merge"):
        make_config(method="ln", merge_attention="plain")


def test_an_older_reader_refuses_the_file(splits, make_config, tmp_path):
    """Its format is one that it does not know: it never answers without merging."""
    config = make_config(method="linear", merge=2)
    output = tune(splits, tmp_path / "a.safetensors", config).adapter
    metadata, _ = read_tensor_file(output, DataError, limit=1 << 20)
    document = json.loads(metadata["vptkit"])
    assert document["format"] == "vptkit.adapter/4"
    assert document["merge"] == {"schedule": [2, 0], "attention": "proportional"}
    assert document["task"] == "single"
