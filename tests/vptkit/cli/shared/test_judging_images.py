"""Which images calibrate and which judge, and that training images never judge in silence."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from vptkit.cli.shared.judging_images import Asked, Tuned, judging_images
from vptkit.errors import DataError
from vptkit.images.image_sketch import sketch_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ("red", "green", "blue")
TRAINING = "judged on training images"
PERHAPS = "may be training images"


@pytest.fixture
def find(tiny_model) -> Callable[..., Any]:
    """A function: the images for --calibration and --gate."""

    def run(calibration=None, gate=None, *, record=None, most=5, **asked):
        wanted = Asked(calibration, gate, most=most, **asked)
        return judging_images(wanted, Tuned(LABELS, tiny_model.preprocess, record or {}))

    return run


@pytest.fixture
def data(colour_folders, tmp_path) -> Path:
    """train/ val/ test/, whose images differ in their bytes."""
    for number, split in enumerate(("train", "val", "test")):
        copy_of(colour_folders, tmp_path / "data" / split, number)
    return tmp_path / "data"


def copy_of(folder: Path, copy: Path, number: int) -> Path:
    """A copy of images with other bytes behind their end."""
    shutil.copytree(folder, copy)
    for file in copy.rglob("*.png"):
        file.write_bytes(file.read_bytes() + bytes(number) + f"{number}{file}".encode())
    return copy


def splits(found: Any) -> tuple[str | None, str | None]:
    return found.calibration_split, found.gate_split


def folders_of(images: Any) -> set[str]:
    return {path.parent.parent.name for path in images.paths}


def test_val_of_the_data_set_that_calibrates_is_the_judge(find, data):
    for named in (data, data / "train", data / "train" / "red"):
        found = find(named)
        assert splits(found) == ("train", "val")
        assert (folders_of(found.calibration), folders_of(found.gate)) == ({"train"}, {"val"})
        assert found.calibration.count == (4 if named.name == "red" else 5)
        assert (found.gate.count, found.too_kind) == (12, None)
        assert len(found.gate.truth) == 12


def test_other_names_of_splits(find, data):
    (data / "val").rename(data / "valid")
    (data / "train").rename(data / "Training")
    for named in (data, data / "Training"):
        assert splits(find(named)) == ("train", "val")
    assert splits(find(data / "Training", data / "valid")) == ("train", "val")


def test_test_judges_where_there_is_no_val(find, data):
    shutil.rmtree(data / "val")
    assert splits(find(data)) == ("train", "test")
    assert find(data).too_kind is None


def test_the_rest_of_val_judges_what_val_calibrates(find, data):
    found = find(data / "val")
    assert splits(found) == ("val", "val")
    assert (found.gate.count, found.too_kind) == (7, None)
    assert not set(found.gate.paths) & set(found.calibration.paths)


@pytest.mark.parametrize("named", [".", "train"])
def test_training_images_that_are_left_are_too_kind(find, data, named):
    for split in ("val", "test"):
        shutil.rmtree(data / split)
    found = find(data / named)
    assert splits(found) == ("train", "train")
    assert (found.calibration.count, found.gate.count) == (5, 7)
    assert found.too_kind == TRAINING
    whole = find(data / named, most=100)
    assert (whole.calibration.count, whole.gate) == (12, None)


def test_folders_that_name_no_split_may_be_training_images(find, colour_folders, tmp_path):
    for named in (colour_folders, colour_folders / "red"):
        found = find(named, most=2)
        assert splits(found) == (None, None)
        assert PERHAPS in found.too_kind
        assert PERHAPS in find(named, named, most=2).too_kind
    elsewhere = copy_of(colour_folders, tmp_path / "elsewhere", 4)
    assert find(colour_folders, elsewhere).too_kind is None
    assert find(None, elsewhere).too_kind is None


def test_a_gate_that_names_training_images(find, data, tmp_path):
    link = tmp_path / "photos"
    link.symlink_to(data / "train")
    (data / "list.csv").write_text("path,label\n" + "train/red/0.png,red\ntrain/blue/0.png,blue\n")
    for named in (data / "train", data / "train" / "red", link, data / "list.csv"):
        assert find(None, named).too_kind.startswith(TRAINING), named
        assert find(data / "val", named).too_kind.startswith(TRAINING), named
    for split in ("val", "test"):
        shutil.rmtree(data / split)
    assert find(None, data).too_kind == TRAINING


def test_a_gate_that_names_a_data_set_takes_test(find, data):
    found = find(data / "train", data)
    assert splits(found) == ("train", "test")
    assert splits(find(None, data, order=("val", "test"))) == (None, "val")
    assert splits(find(None, data / "val")) == (None, "val")
    with pytest.raises(DataError, match="no such folder"):
        find(None, data / "nothing")


@pytest.mark.parametrize("linked", ["the split", "a class", "an image"])
def test_links_into_train_are_followed(find, data, linked):
    place = data / {"the split": "val", "a class": "val/red", "an image": "val/red/0.png"}[linked]
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(data / "train" / place.relative_to(data / "val"))
    assert find(None, data, order=("val",)).too_kind.startswith(TRAINING)
    chosen = find(data)  # then test is there, which is honest
    assert (chosen.gate_split, chosen.too_kind) == ("test", None)


def test_an_image_that_was_calibrated_on_does_not_judge_under_another_name(find, data, tmp_path):
    shutil.copytree(data / "train", tmp_path / "copies")
    found = find(data / "train", tmp_path / "copies")
    assert found.gate.count == 7
    with pytest.raises(DataError, match="no images that were not calibrated on"):
        find(data / "train", tmp_path / "copies", most=100)


def lines_of(data: Path, split: Callable[[Path], str]) -> str:
    files = sorted(data.rglob("*.png"))
    return "".join(f"{file},{file.parent.name},{split(file)}\n" for file in files)


def test_a_list_with_splits(find, data):
    file = data / "list.csv"
    file.write_text("path,label,split\n" + lines_of(data, lambda f: f.parent.parent.name))
    found = find(file)
    assert splits(found) == ("train", "val")
    assert (folders_of(found.calibration), folders_of(found.gate)) == ({"train"}, {"val"})
    file.write_text("path,label,split\n" + lines_of(data / "train", lambda _: "train"))
    assert (splits(find(file)), find(file).too_kind) == (("train", "train"), TRAINING)
    assert find(None, file).too_kind == TRAINING


def test_a_list_says_more_than_the_folder_it_lies_in(find, data):
    """All of a competition's images lie in train/, and its list says which of them are val."""
    file = data / "train" / "list.csv"
    by_number = lines_of(data / "train", lambda f: "val" if f.name == "0.png" else "train")
    file.write_text("path,label,split\n" + by_number)
    found = find(file)
    assert (splits(found), found.gate.count, found.too_kind) == (("train", "val"), 3, None)


def test_a_list_without_splits(find, data):
    for name, expected in (("list.csv", None), ("val.csv", "val"), ("train.csv", "train")):
        rows = [f"{f},{f.parent.name}\n" for f in sorted((data / "val").rglob("*.png"))]
        (data / name).write_text("path,label\n" + "".join(rows))
        found = find(None, data / name)
        assert found.gate_split == expected
        assert (found.too_kind == TRAINING) == (expected == "train")


def test_a_val_that_joined_train_is_too_kind(find, data):
    record = {"cross_validation": {"folds": 5, "joined": 12}}
    assert TRAINING in find(None, data / "val", record=record).too_kind
    assert find(data, record=record).gate_split == "test"
    shutil.rmtree(data / "test")
    assert "so small that it was trained on" in find(data, record=record).too_kind


def test_the_folder_that_was_tuned_on_is_known_by_its_numbers(find, colour_folders):
    counts = dict.fromkeys(LABELS, 1)
    record = {"images": {"train": dict.fromkeys(LABELS, 2), "val": counts, "test": counts}}
    assert PERHAPS in find(None, colour_folders, record=record).too_kind
    for odd in (9, "2", None):
        record["images"]["train"]["red"] = odd
        assert find(None, colour_folders, record=record).too_kind is None
    record["images"] = {"train": [2], "val": counts}
    assert find(None, colour_folders, record=record).too_kind is None


def test_copies_of_training_images_elsewhere(find, data, tmp_path):
    """As somebody does it who collects some images "to calibrate on"."""
    trained = sorted((data / "train").rglob("*.png"))
    record = {"trained_on": sketch_of(trained)}
    (tmp_path / "flat").mkdir()
    for number, image in enumerate([*trained[:3], *sorted((data / "val").rglob("*.png"))[:4]]):
        shutil.copyfile(image, tmp_path / "flat" / f"{number}.png")
    found = find(gate=tmp_path / "flat", record=record)
    assert found.too_kind == f"{TRAINING} (3 of 7 are copies of these)"
    assert find(gate=tmp_path / "flat").too_kind is None
    assert find(gate=data / "val", record=record).too_kind is None


def test_broken_images_are_skipped_where_that_was_asked(find, data, capsys):
    image = next((data / "val" / "red").glob("*.png"))
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"1 of 12 images cannot be read. --skip-broken"):
        list(find(data).gate.batches())
    found = find(data, skip_broken=True)
    assert (found.gate.count, len(found.gate.truth)) == (11, 11)
    assert f"1 broken image was skipped: val/red/{image.name}" in capsys.readouterr().err


def test_where_only_broken_images_are_left_there_is_no_judge(find, colour_folders):
    """The calibration took all others: as where nothing is left."""
    (colour_folders / "red" / "9.png").write_bytes(b"broken")
    found = find(colour_folders, most=13, skip_broken=True)
    assert (found.calibration.count, found.gate) == (12, None)
    left = find(colour_folders, most=12, skip_broken=True)
    assert left.calibration.count + (left.gate.count if left.gate else 0) == 12
    with pytest.raises(DataError, match=r"None is left: .*9.png"):
        find(colour_folders, colour_folders, most=13, skip_broken=True)


def test_columns_of_a_table_that_calibrates(find, data):
    lines = ["photo,kind,part"]
    lines += [f"{p.relative_to(data)},{p.parent.name},{p.parts[-3]}" for p in data.rglob("*.png")]
    (data / "all.csv").write_text("\n".join(lines))
    found = find(data / "all.csv", columns="image=photo,label=kind,split=part")
    assert (splits(found), found.gate.count) == (("train", "val"), 12)
