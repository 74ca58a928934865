"""Data and backbone of a run: what is found, what is refused before the training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from dataclasses import replace  # noqa: E402

from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from tests.support.tuning_runs import names  # noqa: E402
from vptkit.errors import BackboneError, DataError  # noqa: E402
from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.formats.backbone_weights import digest_of_weights  # noqa: E402
from vptkit.progress import SILENT  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.backbone.spec_from_timm import weights_from_model  # noqa: E402
from vptkit.tune.data.splits import data_digest, load_splits  # noqa: E402
from vptkit.tune.run.load_run import RunRequest, load_run, read_images  # noqa: E402
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
        inputs = load_run(request)
        if test:
            with pytest.raises(DataError, match=r"test/blue/1\.png"):
                read_images(request, inputs)
        else:
            read_images(request, inputs)  # nobody will look at it


def spoiled(make_folders, folder):
    """A data set of which one image a split is broken, in three ways."""
    for seed, name in enumerate(("train", "val", "test")):
        make_folders(folder / name, 6, seed)
    (folder / "train" / "red" / "2.png").write_bytes(b"\x89PNG no more")
    (folder / "val" / "blue" / "0.png").unlink()
    (folder / "val" / "blue" / "0.png").symlink_to(folder / "nowhere")
    content = (folder / "test" / "green" / "4.png").read_bytes()
    (folder / "test" / "green" / "4.png").write_bytes(content[: len(content) // 2])
    return {"train/red/2.png", "val/blue/0.png", "test/green/4.png"}


def test_all_broken_images_are_named_before_the_training(make_folders, make_config, tmp_path):
    broken = spoiled(make_folders, tmp_path / "d")
    with pytest.raises(DataError, match=r"3 of 54 images cannot be read\. --skip-broken") as caught:
        tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(method="linear"))
    assert all(name in str(caught.value) for name in broken)
    assert names(tmp_path) == {"d"}


def test_broken_images_are_left_out_and_recorded(make_folders, make_config, tmp_path):
    broken = spoiled(make_folders, tmp_path / "d")
    config = make_config(method="linear", skip_broken=True)
    result = tune(tmp_path / "d", tmp_path / "a.safetensors", config)
    assert {one["path"].removeprefix(f"{tmp_path}/d/") for one in result.skipped} == broken
    assert all(one["name"] in one["reason"] for one in result.skipped)
    assert [w for w in result.warnings if "3 broken images were skipped: train/red/2.png" in w]
    assert {split: sum(counts.values()) for split, counts in result.images.items()} == {
        "train": 17,
        "val": 17,
        "test": 17,
    }
    record = read_adapter(result.adapter).train
    assert {one["name"] for one in record["skipped"]} == broken
    assert str(tmp_path) not in str(record["skipped"])
    # the same run, whether they are skipped or were never there
    again = tune(tmp_path / "d", tmp_path / "a.safetensors", config, resume=True)
    assert (again.val_top1, again.images) == (result.val_top1, result.images)
    assert again.skipped == result.skipped  # one form, read from the adapter or fresh
    for name in broken:
        (tmp_path / "d" / name).unlink()
    tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(method="linear"), resume=True)


def test_a_class_without_a_whole_image_is_refused(make_folders, make_config, tmp_path):
    make_folders(tmp_path / "train", 5)
    make_folders(tmp_path / "val", 5, 1)
    for path in (tmp_path / "train" / "red").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="of the class 'red' no training image can be read"):
        tune(tmp_path, tmp_path / "a.safetensors", make_config(skip_broken=True))


def test_an_image_in_two_splits_is_a_warning_or_an_error(make_folders, make_config, tmp_path):
    data, again = tmp_path / "d", tmp_path / "again.safetensors"
    for seed, name in enumerate(("train", "val", "test")):
        make_folders(data / name, 5, seed)
    with Image.open(data / "train" / "red" / "3.png") as image:
        large = image.resize((96, 64))  # of smaller files copies must be nearer
    large.save(data / "train" / "red" / "3.png")
    large.resize((192, 128)).save(data / "test" / "red" / "0.png")
    config = make_config(method="linear")
    request = request_of(data, tmp_path / "a.safetensors", config)
    inputs = read_images(request, load_run(request))
    assert inputs.warnings(data) == (
        "1 image is in two splits, so accuracy flatters: test/red/0.png is train/red/3.png",
    )
    strict = request_of(data, again, replace(config, strict=True))
    with pytest.raises(
        DataError, match=r"test/red/0\.png is train/red/3\.png.*leave --strict away"
    ):
        read_images(strict, load_run(strict))
