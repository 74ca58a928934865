"""Splits by folder or drawn at random, their digest, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from tests.support.dataset_formats import assert_unreadable  # noqa: E402
from vptkit.errors import (  # noqa: E402
    DataError,
)
from vptkit.tune.config import TuneConfig  # noqa: E402
from vptkit.tune.data.splits import (  # noqa: E402
    USUAL_SHARE,
    class_counts,
    data_digest,
    load_splits,
)

if TYPE_CHECKING:
    from pathlib import Path


LABELS = ("blue", "green", "red")


def test_folders_that_are_split_already(splits):
    labels, found = load_splits(splits, 0, 0.15, 0.15)
    assert labels == LABELS
    assert {name: len(split.images) for name, split in found.items()} == {
        "train": 24,
        "val": 15,
        "test": 12,
    }
    for name, split in found.items():
        for path, target in zip(split.images, split.targets, strict=True):
            assert path.parent == splits / name / LABELS[target]


def test_a_test_split_is_optional(make_folders, tmp_path):
    for name in ("train", "val"):
        make_folders(tmp_path / name, 5)
    assert set(load_splits(tmp_path, 0, 0.15, 0.15)[1]) == {"train", "val"}


def test_the_random_split(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 20)
    _, first = load_splits(folder, 5, 0.3, 0.25)
    _, again = load_splits(folder, 5, 0.3, 0.25)
    _, other = load_splits(folder, 6, 0.3, 0.25)
    assert {name: split.images for name, split in first.items()} == {
        name: split.images for name, split in again.items()
    }
    assert first["val"].images != other["val"].images
    for found in (first, other):
        everything = [path for split in found.values() for path in split.images]
        assert len(everything) == len(set(everything)) == 60
        for name, count in {"train": 9, "val": 6, "test": 5}.items():
            assert np.bincount(found[name].targets).tolist() == [count] * 3
            for path, target in zip(found[name].images, found[name].targets, strict=True):
                assert path.parent.name == LABELS[target]


def test_each_class_is_split_on_its_own(make_folders, tmp_path):
    """More images of one class leave the split of the others alone."""
    folder = make_folders(tmp_path / "d", 12)
    before = load_splits(folder, 0, 0.45, 0.2)[1]["val"].images
    for i in range(5):
        Image.new("RGB", (32, 32)).save(folder / "red" / f"more{i}.png")
    after = load_splits(folder, 0, 0.45, 0.2)[1]["val"].images
    others = [path for path in before if path.parent.name != "red"]
    assert others == [path for path in after if path.parent.name != "red"]


@pytest.mark.parametrize(
    ("count", "shares", "wanted"),
    [
        (1, (0.15, 0.15), {"train": 1}),
        (10, (0.15, 0.15), {"train": 10}),
        (33, (0.15, 0.15), {"train": 33}),  # 4.95 would be in each
        (34, (0.15, 0.15), {"train": 24, "val": 5, "test": 5}),
        (10, (0.5, 0.1), {"train": 5, "val": 5}),
        (10, (0.1, 0.5), {"train": 5, "test": 5}),
        (10, (0.5, 0.0), {"train": 5, "val": 5}),
        (10, (0.0, 0.0), {"train": 10}),
    ],
)
def test_a_split_of_fewer_than_five_a_class_is_not_drawn(
    make_folders, tmp_path, count, shares, wanted
):
    """Its images are for training."""
    labels, found = load_splits(make_folders(tmp_path / "d", count), 0, *shares)
    assert class_counts(labels, found) == {
        name: dict.fromkeys(labels, number) for name, number in wanted.items()
    }
    assert found["train"].joined == 0


@pytest.mark.parametrize(("count", "joined"), [(4, 12), (5, 0)])
def test_a_named_val_of_fewer_than_five_a_class_joins_train(make_folders, tmp_path, count, joined):
    for seed, (name, images) in enumerate({"train": 6, "val": count, "test": 2}.items()):
        make_folders(tmp_path / name, images, seed)
    labels, found = load_splits(tmp_path, 0, 0.15, 0.15)
    assert found["train"].joined == joined
    assert ("val" in found) == (not joined)
    everything = [path for split in found.values() for path in split.images]
    assert len(everything) == len(set(everything)) == 3 * (6 + count + 2)
    assert class_counts(labels, found)["test"] == dict.fromkeys(labels, 2)  # named: it stays
    for image, target in zip(found["train"].images, found["train"].targets, strict=True):
        assert image.parent.name == labels[target]


def test_a_named_val_is_judged_by_all_classes(make_folders, tmp_path):
    """Six images of one of three classes are two a class."""
    for seed, name in enumerate(("train", "val")):
        make_folders(tmp_path / name, 6, seed)
    rows = ["path,label,split"]
    for path in sorted(tmp_path.rglob("*.png")):
        split, label = path.parts[-3:-1]
        if split == "train" or label == "red":
            rows.append(f"{path.relative_to(tmp_path)},{label},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    labels, found = load_splits(tmp_path / "list.csv", 0, 0.15, 0.15)
    assert class_counts(labels, found) == {"train": {"blue": 6, "green": 6, "red": 12}}


def test_with_shots_a_named_val_stays_whole(make_folders, tmp_path):
    """Else the number of training images would not be that of the shots."""
    for seed, name in enumerate(("train", "val")):
        make_folders(tmp_path / name, 3, seed)
    labels, found = load_splits(tmp_path, 0, 0.15, 0.15, shots=2)
    wanted = {"train": dict.fromkeys(labels, 2), "val": dict.fromkeys(labels, 3)}
    assert class_counts(labels, found) == wanted


def test_shots_of_a_folder_without_val_are_all_there_is(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 10)
    labels, found = load_splits(folder, 0, 0.15, 0.15, shots=2)
    assert class_counts(labels, found) == {"train": dict.fromkeys(labels, 2)}


def test_a_class_too_small_to_be_split(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 20)
    for i in range(2, 20):
        (folder / "blue" / f"{i}.png").unlink()
    with pytest.raises(DataError, match=r"blue: 2 images are too few.*at least 3"):
        load_splits(folder, 0, 0.4, 0.4)


def test_shares_that_leave_nothing_to_train_on(make_folders, tmp_path):
    with pytest.raises(DataError, match="too few to split"):
        load_splits(make_folders(tmp_path / "d", 10), 0, 0.5, 0.5)


def test_no_folder_no_classes_one_class(make_folders, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        load_splits(tmp_path / "nowhere", 0, 0.15, 0.15)
    with pytest.raises(DataError, match=r"empty: expected one folder per class"):
        load_splits(tmp_path, 0, 0.15, 0.15)
    with pytest.raises(DataError, match="only one class, 'blue'"):
        load_splits(make_folders(tmp_path / "one", 5, classes=1), 0, 0.15, 0.15)
    folder = make_folders(tmp_path / "hole", 5)
    for file in (folder / "green").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no images in the class folder 'green'"):
        load_splits(folder, 0, 0.15, 0.15)


@pytest.mark.parametrize(("share", "val"), [(0.15, 0), (0.5, 5)])
@pytest.mark.parametrize("others", [(), ("test",), ("ood",)])
def test_train_without_val(make_folders, tmp_path, share, val, others):
    """Val is drawn from it, if that gives enough; test only where nothing else is named."""
    for name in ("train", *others):
        make_folders(tmp_path / name, 10)
    labels, found = load_splits(tmp_path, 0, share, 0.15)
    wanted = {"train": 10 - val, "val": val, **dict.fromkeys(others, 10)}
    assert class_counts(labels, found) == {
        name: dict.fromkeys(labels, count) for name, count in wanted.items() if count
    }


def test_a_class_may_be_called_train(make_folders, tmp_path):
    (make_folders(tmp_path, 4) / "red").rename(tmp_path / "train")
    assert load_splits(tmp_path, 0, 0.2, 0.2)[0] == ("blue", "green", "train")


@pytest.mark.parametrize("split", ["val", "test"])
def test_splits_with_other_classes(make_folders, tmp_path, split):
    for name in ("train", "val", "test"):
        make_folders(tmp_path / name, 2)
    (tmp_path / split / "red").rename(tmp_path / split / "rot")
    with pytest.raises(DataError, match=rf"{split}: its classes differ.*'red', 'rot'"):
        load_splits(tmp_path, 0, 0.15, 0.15)


def test_the_digest_sees_every_change(make_folders, tmp_path):
    def digest(folder: Path) -> str:
        return data_digest(load_splits(folder, 0, 0.2, 0.2)[1])

    folder = make_folders(tmp_path / "d", 5)
    first = digest(folder)
    assert first == digest(make_folders(tmp_path / "elsewhere", 5))
    file = folder / "red" / "0.png"
    content = file.read_bytes()
    file.write_bytes(content + b"\0")
    assert digest(folder) != first
    file.write_bytes(content)
    assert digest(folder) == first
    file.rename(folder / "red" / "9.png")
    assert digest(folder) != first


# names of folders, ood ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("training", "validation", "testing"),
        ("Train", "Val", "Test"),
        ("train", "valid", "eval"),
    ],
)
def test_folders_of_splits_by_other_names(splits, tmp_path, names):
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        (tmp_path / name).symlink_to(splits / split)
    (tmp_path / "notes").mkdir()
    found = load_splits(tmp_path, 0, 0.15, 0.15, allow_outside=True)[1]
    assert data_digest(found) == data_digest(load_splits(splits, 0, 0.15, 0.15)[1])


def test_of_two_names_of_a_split_the_usual_one_counts(splits, tmp_path):
    for name, split in {"train": "train", "val": "val", "dev": "test", "Val": "test"}.items():
        (tmp_path / name).symlink_to(splits / split)
    found = load_splits(tmp_path, 0, 0.15, 0.15, allow_outside=True)[1]
    assert {image.parents[1].name for image in found["val"].images} == {"val"}


def test_splits_without_train_are_no_classes(make_folders, tmp_path):
    for name in ("validation", "test"):
        make_folders(tmp_path / name, 4)
    assert_unreadable(tmp_path, "has validation, test but no train/")


def test_a_class_may_be_called_as_a_split_is(make_folders, tmp_path):
    (make_folders(tmp_path, 4) / "red").rename(tmp_path / "training")
    assert load_splits(tmp_path, 0, 0.2, 0.2)[0] == ("blue", "green", "training")


def test_ood_is_a_split_that_the_digest_passes_over(make_folders, tmp_path):
    for seed, name in enumerate(("train", "val", "test")):
        make_folders(tmp_path / name, 4, seed)
    before = data_digest(load_splits(tmp_path, 0, 0.15, 0.15)[1])
    make_folders(tmp_path / "ood", 3, 9, classes=2)  # fewer classes are right there, others not
    labels, found = load_splits(tmp_path, 0, 0.15, 0.15)
    assert class_counts(labels, found)["ood"] == {"blue": 3, "green": 3, "red": 0}
    assert data_digest(found) == before
    (tmp_path / "ood" / "blue").rename(tmp_path / "ood" / "bleu")
    found = load_splits(tmp_path, 0, 0.15, 0.15)[1]
    assert len(found["ood"].images) == 3
    assert (
        "ood has 1 class (bleu) that train does not have; left out: 3 images"
        in found["train"].notes[0]
    )


def test_splits_that_lack_a_class_or_have_one_more_are_reported(make_folders, tmp_path):
    """As exports of small data sets do: what is judged is judged by the others."""
    for seed, name in enumerate(("train", "valid", "test")):
        make_folders(tmp_path / name, 8, seed)
    for path in (tmp_path / "valid" / "red").iterdir():
        path.unlink()
    (tmp_path / "test" / "pink").mkdir()
    for path in list((tmp_path / "test" / "green").iterdir())[:2]:
        path.rename(tmp_path / "test" / "pink" / path.name)
    labels, found = load_splits(tmp_path, 0, 0.15, 0.15)
    assert class_counts(labels, found) == {
        "train": {"blue": 8, "green": 8, "red": 8},
        "val": {"blue": 8, "green": 8, "red": 0},
        "test": {"blue": 8, "green": 6, "red": 8},
    }
    notes = found["train"].notes
    assert [note.removeprefix(f"{tmp_path}: ") for note in notes] == [
        "val has no images of 1 class (red), which it says nothing of",
        "test has 1 class (pink) that train does not have; left out: 2 images",
    ] or len(notes) == 2


def test_a_split_without_any_image_is_none(make_folders, tmp_path):
    for seed, name in enumerate(("train", "test")):
        make_folders(tmp_path / name, 8, seed)
    (tmp_path / "valid").mkdir()
    found = load_splits(tmp_path, 0, 0.15, 0.15)[1]
    assert set(found) == {"train", "test"}
    assert "val has no images of train's classes, so there is no val" in found["train"].notes[0]


def test_a_link_that_leads_nowhere_is_not_left_out(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 4)
    (folder / "red" / "0.png").unlink()
    (folder / "red" / "0.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"red/0\.png: no such file"):
        data_digest(load_splits(folder, 0, 0.2, 0.2)[1])


@pytest.mark.parametrize(
    ("split", "shares", "why"),
    [
        ("val", (0.3, 0.15), "val_share is 0.3, .* its own val"),
        ("val", (0.0, 0.15), "val_share is 0, .* its own val"),
        ("val", (0.15, 0.3), "test_share is 0.3, .* none is test"),
        ("test", (0.15, 0.3), "test_share is 0.3, .* its own test"),
    ],
)
def test_a_share_of_what_is_not_drawn_is_refused(make_folders, tmp_path, split, shares, why):
    make_folders(tmp_path / "train", 10)
    make_folders(tmp_path / split, 6)
    with pytest.raises(DataError, match=why):
        load_splits(tmp_path, 0, *shares)
    load_splits(tmp_path, 0, 0.15, 0.15)


def test_the_usual_share_is_that_of_the_settings():
    config = TuneConfig(backbone="vit_tiny_patch16_224")
    assert config.val_share == config.test_share == USUAL_SHARE
