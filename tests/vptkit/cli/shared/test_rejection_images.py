"""`export --reject-from DATA`: train and val, and no other split in their place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vptkit.cli.shared.rejection_images import rejection_images
from vptkit.errors import DataError


@pytest.fixture
def adapter(tiny_model):
    return SimpleNamespace(
        name="a", labels=("red", "green"), preprocess=tiny_model.preprocess, task="single"
    )


def made(root, splits, classes=("red", "green")):
    for number, split in enumerate(splits):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(number + 1):
                Image.new("RGB", (20, 30), (i, number, 0)).save(folder / f"{i}.png")
    return root


def test_train_and_val_with_their_classes(tmp_path, adapter):
    train, val = rejection_images(made(tmp_path, ["train", "valid", "test"]), adapter)
    assert (train.count, val.count) == (2, 4)
    assert train.truth.tolist() == [1, 0]  # green comes first in the folder
    assert np.concatenate(list(val.batches())).shape == (4, 24, 16, 3)


@pytest.mark.parametrize(
    ("splits", "missing"),
    [
        (["train", "test"], "no split val"),
        (["val", "test"], "no split train"),
        ([], "train and val"),
    ],
)
def test_a_split_that_is_missing_is_not_replaced_by_another(tmp_path, adapter, splits, missing):
    data = made(tmp_path / "data", splits or ["red"])
    with pytest.raises(DataError, match=missing):
        rejection_images(data, adapter)


def test_classes_that_the_adapter_does_not_know(tmp_path, adapter):
    data = made(tmp_path, ["train", "val"], ("red", "violet"))
    with pytest.raises(DataError, match="classes of train are not labels of the adapter 'a'"):
        rejection_images(data, adapter)


def test_of_several_labels_an_image_the_images_alone_matter(tmp_path, adapter):
    made(tmp_path, ["train", "val"])
    lines = [f"{p.relative_to(tmp_path)},a;b" for p in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,labels", *lines]) + "\n")
    with pytest.raises(DataError, match="no split train"):
        rejection_images(tmp_path / "list.csv", several(adapter))
    parts = [f"{line},{line[: line.index('/')]}" for line in lines]
    (tmp_path / "list.csv").write_text("\n".join(["path,labels,split", *parts]) + "\n")
    train, val = rejection_images(tmp_path / "list.csv", several(adapter))
    assert (train.count, val.count, train.truth) == (2, 4, None)
    with pytest.raises(DataError, match="not labels of the adapter"):
        rejection_images(tmp_path / "list.csv", adapter)


def several(adapter):
    return SimpleNamespace(**{**vars(adapter), "task": "multilabel"})


def test_columns_and_broken_images_of_a_table(tmp_path, adapter, capsys):
    made(tmp_path, ["train", "val"])
    lines = [
        f"{p.relative_to(tmp_path)},{p.parent.name},{p.parts[-3]}" for p in tmp_path.rglob("*.png")
    ]
    (tmp_path / "all.csv").write_text("\n".join(["photo,kind,part", *lines]))
    (tmp_path / "val" / "red" / "1.png").write_bytes(b"no image")
    asked = {"columns": "image=photo,label=kind,split=part", "skip_broken": True}
    train, val = rejection_images(tmp_path / "all.csv", adapter, **asked)
    assert (train.count, val.count, len(val.truth)) == (2, 3, 3)
    assert "1 broken image was skipped: val/red/1.png" in capsys.readouterr().err
