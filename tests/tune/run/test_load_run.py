"""Data and backbone of a run: what is found, what is refused before the training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.support.tuning_runs import names  # noqa: E402
from vptkit.errors import BackboneError, DataError  # noqa: E402
from vptkit.formats.backbone_weights import digest_of_weights  # noqa: E402
from vptkit.progress import SILENT  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import weights_from_model  # noqa: E402
from vptkit.tune.data.splits import data_digest, load_splits  # noqa: E402
from vptkit.tune.run.load_run import RunRequest, load_run, require_readable  # noqa: E402
from vptkit.tune.training.run_files import run_files  # noqa: E402


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"backbone": "vit_of_my_own"}, "timm has no model of this name"),
        ({"backbone_args": {"colour": 3}}, "colour"),
        ({"backbone_args": {"img_size": -32}}, "img_size is -32"),
        ({"backbone_args": {"img_size": "32"}}, "img_size is '32'"),
        ({"backbone_args": {"act_layer": "nonsense"}}, "nonsense"),
        ({"backbone_args": {"num_heads": 5}}, "timm cannot build it with .*'num_heads': 5"),
    ],
)
def test_a_backbone_that_cannot_be_built(splits, make_config, tmp_path, overrides, message):
    arguments = {**make_config().backbone_args, **overrides.get("backbone_args", {})}

    def run():
        config = make_config(**{**overrides, "backbone_args": arguments})
        tune(splits, tmp_path / "a.safetensors", config)

    with pytest.raises(BackboneError, match=message) as caught:
        run()
    assert "could not be fetched" not in str(caught.value)
    assert names(tmp_path) == set()


def test_an_unsupported_feature_is_named(splits, make_config, make_vit, tmp_path):
    save_file(make_vit(act_layer="relu").state_dict(), tmp_path / "w.safetensors")
    arguments = {**make_config().backbone_args, "act_layer": "relu"}
    config = make_config(backbone_args=arguments, weights=tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match="vit_tiny_patch16_224: not supported yet: act_layer"):
        tune(splits, tmp_path / "a.safetensors", config)


@pytest.mark.parametrize("damage", ["truncated", "nan", "missing", "misshapen", "absent"])
def test_weights_that_do_not_fit(splits, weights, make_config, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    state = load_file(weights)
    if damage == "nan":
        state["blocks.1.mlp.fc1.bias"][3] = float("nan")
    elif damage == "missing":
        del state["blocks.1.mlp.fc1.bias"]
    elif damage == "misshapen":
        state["blocks.1.mlp.fc1.bias"] = torch.zeros(5)
    if damage != "absent":
        save_file(state, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BackboneError, match=r"w\.safetensors: ") as caught:
        tune(splits, tmp_path / "a.safetensors", make_config(weights=path))
    if damage in ("nan", "missing", "misshapen"):
        assert "blocks.1.mlp.fc1.bias" in str(caught.value)


def test_a_broken_image_stops_the_run_by_name(make_folders, make_config, tmp_path):
    for name in ("train", "val"):
        make_folders(tmp_path / "d" / name, 4)
    (tmp_path / "d" / "train" / "red" / "2.png").write_bytes(b"\x89PNG no more")
    for settings in ({"method": "linear"}, {"method": "bpt"}, {"form": "fwhiten"}):
        with pytest.raises(DataError, match=r"train/red/2\.png"):
            tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(**settings))
    assert names(tmp_path) == {"d"}


def request_of(data, output, config, **options):
    """What `tune` asks for, by default without any option."""
    options = {"resume": False, "force": False, "test": True, **options}
    files = run_files(output)
    return RunRequest(data=data, files=files, config=config, progress=SILENT, begun=0.0, **options)


def test_which_run_it_is(splits, make_vit, make_config, tmp_path):
    config = make_config(shots=2)
    inputs = load_run(request_of(splits, tmp_path / "a.safetensors", config))
    labels, found = load_splits(splits, 0, 0.15, 0.15, shots=2)
    assert inputs.identity == {
        "config": config.to_json(),
        "data": data_digest(found),
        "backbone": digest_of_weights(weights_from_model(make_vit())),
        "labels": ["blue", "green", "red"],
    }
    assert inputs.labels == labels
    assert {name: len(data) for name, data in inputs.sets.items()} == {
        "train": 6,
        "val": 15,
        "test": 12,
    }
    assert inputs.reference.sha256 == inputs.identity["backbone"]
    assert not inputs.finished
    assert names(tmp_path) == set()


def test_a_run_without_test_does_not_see_its_images(splits, make_config, tmp_path):
    """But it is the same run: its identity counts them."""
    output, config = tmp_path / "a.safetensors", make_config()
    seen, blind = (load_run(request_of(splits, output, config, test=t)) for t in (True, False))
    assert set(blind.sets) == {"train", "val"}
    assert set(blind.splits) == {"train", "val", "test"}
    assert blind.identity == seen.identity


@pytest.mark.parametrize(
    ("options", "finished"),
    [({"resume": True}, True), ({"force": True}, False), ({"resume": True, "force": True}, False)],
)
def test_an_adapter_that_is_there(splits, make_config, tmp_path, options, finished):
    (tmp_path / "a.safetensors").write_bytes(b"of another day")
    request = request_of(splits, tmp_path / "a.safetensors", make_config(), **options)
    assert load_run(request).finished is finished


def test_a_broken_test_image_is_found_before_the_training(make_folders, make_config, tmp_path):
    for name in ("train", "val", "test"):
        make_folders(tmp_path / "d" / name, 2)
    (tmp_path / "d" / "test" / "blue" / "1.png").write_bytes(b"\x89PNG no more")
    config = make_config()
    for test in (True, False):
        request = request_of(tmp_path / "d", tmp_path / "a.safetensors", config, test=test)
        sets = load_run(request).sets
        if test:
            with pytest.raises(DataError, match=r"test/blue/1\.png"):
                require_readable(sets, config)
        else:
            require_readable(sets, config)  # nobody will look at it
