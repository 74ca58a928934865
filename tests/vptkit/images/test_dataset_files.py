"""CSV files and shards without torch; tests/tune/data/test_dataset_reader.py compares the formats' pixels."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import DataError
from vptkit.images.dataset_files import read_data_files
from vptkit.images.image_file import PackedImage, open_image
from vptkit.images.labelled_images import Row, group_rows, split_of_file, split_of_name


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# ---- names of splits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train-000000.tar", "train"),
        ("train/0.tar", "train"),
        ("data/validation-00000-of-00002.parquet", "val"),
        ("birds_dev.tar", "val"),
        ("val2017.tar", "val"),
        ("Eval.01.tar", "test"),
        ("ood/7.tar", "ood"),
        ("trains-000.tar", ""),
        ("00000.tar", ""),
        ("test/test-1.tar", "test"),
    ],
)
def test_the_split_in_a_files_name(file, split):
    root = Path("/data/train")  # what lies above does not count
    assert split_of_file(root / file, root) == split


def test_two_splits_in_a_files_name():
    with pytest.raises(DataError, match=r"train/test\.tar: the name tells two splits"):
        split_of_file(Path("/d/train/test.tar"), Path("/d"))


def test_words_for_splits():
    assert [split_of_name(name) for name in (" Valid", "evaluation", "ood", "holdout")] == [
        *("val", "test", "ood"),
        None,
    ]


# ---- rows ---------------------------------------------------------------------------------------


def row(label: str | int, split: str = "", name: str = "x.png") -> Row:
    return Row(split, label, Path(name))


@pytest.mark.parametrize(
    ("labels", "names", "order"),
    [
        (("b", "a", "b"), None, ["a", "b"]),
        ((10, 9, 1), None, ["1", "9", "10"]),
        (("10", "9", "1"), None, ["1", "10", "9"]),  # words, as folders are called
        ((0, 2, 1), ("z", "y", "x"), ["z", "y", "x"]),
        (("x", 0), ("z", "y", "x"), ["z", "x"]),  # names without images are no classes
    ],
)
def test_the_order_of_classes(labels, names, order):
    found = group_rows(Path("d"), [row(label) for label in labels], names)
    assert list(found) == [""]
    assert list(found[""]) == order


def test_images_keep_their_order_in_a_class():
    names = ["c", "a", "b"]
    found = group_rows(Path("d"), [row(i % 2, "train", names[i]) for i in range(3)])
    assert found == {"train": {"0": [Path("c"), Path("b")], "1": [Path("a")]}}


# ---- files --------------------------------------------------------------------------------------


def test_shards(tmp_path):
    """An image is found at its place in the archive, whatever comes between."""
    for split, base in (("train", 0), ("test", 100)):
        write_tar(
            tmp_path / split / "0.tar",
            {
                "./a.cls": b"1\n",
                "./a.PNG": png(base + 1),
                "./notes.txt": b"n" * 700,
                "./b.seg.png": png(99),  # of another kind, for its suffix is .seg.png
                "./b.png": png(base + 2),
                "./b.json": b'{"label": 0}',
            },
        )
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    found = read_data_files(tmp_path)
    assert {s: list(c) for s, c in found.items()} == {
        "test": ["cat", "dog"],
        "train": ["cat", "dog"],
    }
    image = found["test"]["dog"][0]
    assert isinstance(image, PackedImage)
    assert str(image) == f"{tmp_path / 'test' / '0.tar'}: a.PNG"
    assert np.asarray(open_image(image)).tolist() == np.full((4, 5, 3), 101).tolist()
    assert image.read_bytes() == png(101)
    assert found["train"]["cat"][0].read_bytes() == png(2)


def test_a_moved_archive_is_named(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"a.png": png(1), "a.cls": b"0"})
    image = read_data_files(file)[""]["0"][0]
    file.rename(tmp_path / "b.tar")
    with pytest.raises(DataError, match=r"a\.tar: a\.png: No such file"):
        open_image(image)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv(tmp_path, delimiter):
    for name in ("b,1.png", "a.png"):
        (tmp_path / name).write_bytes(png(1))
    lines = [["Label", "path"], ["red", '"b,1.png"'], ["blue", "a.png"], [""]]
    file = tmp_path / "list.csv"
    file.write_text("\r\n".join(delimiter.join(cells) for cells in lines))
    assert read_data_files(file) == {
        "": {"blue": [tmp_path / "a.png"], "red": [tmp_path / "b,1.png"]}
    }


def test_what_is_left_to_others(tmp_path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(png(1))
    assert read_data_files(tmp_path) is None
    assert read_data_files(tmp_path / "nowhere") is None
    with pytest.raises(DataError, match=r"a\.png: not a data set .* \.csv, \.tsv, \.tar"):
        read_data_files(tmp_path / "red" / "a.png")
