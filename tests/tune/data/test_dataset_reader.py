"""The same images as folders, CSV, Parquet, a saved data set and shards: the same pixels come out."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.dataset_formats import (  # noqa: E402
    LABELS,
    NAMES,
    PREPROCESS,
    add,
    assert_unreadable,
    table,
    write_csv,
    write_parquet,
    write_saved,
    write_shards,
)
from vptkit.errors import DataError  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.dataset_reader import read_splits  # noqa: E402
from vptkit.tune.data.splits import class_counts, data_digest, load_splits  # noqa: E402

# ---- the same pixels ----------------------------------------------------------------------------


WRITERS = {
    "csv": write_csv,
    "tsv": lambda folders, root: write_csv(folders, root, "\t"),
    "parquet": write_parquet,
    "parquet of words": lambda folders, root: write_parquet(folders, root, "words"),
    "saved": write_saved,
    "shards": write_shards,
    "shards and names": lambda folders, root: write_shards(folders, root, "names"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_pixels_are_those_of_the_folders(splits, tmp_path, kind):
    labels, wanted = load_splits(splits, 0, 0.15, 0.15)
    found_labels, found = load_splits(
        WRITERS[kind](splits, tmp_path), 0, 0.15, 0.15, allow_outside=True
    )
    assert set(found_labels) == set(labels)
    assert set(found) == {"train", "val", "test"}
    for name in wanted:
        pixels = {}
        for key, split, names in (
            ("wanted", wanted[name], labels),
            ("found", found[name], found_labels),
        ):
            order = np.argsort([names[target] for target in split.targets], kind="stable")
            pixels[key] = DataSet(split, PREPROCESS).prepared(order)
        assert np.array_equal(pixels["wanted"], pixels["found"])
    if found_labels == labels:  # then nothing at all tells them apart
        assert data_digest(found) == data_digest(wanted)
    else:
        assert found_labels == tuple(NAMES)


def test_a_training_does_not_know_the_format(splits, make_config, tmp_path):
    config = make_config(method="vpt", name="x", allow_outside=True)
    first = tune(splits, tmp_path / "folders.safetensors", config)
    for kind in ("csv", "parquet of words", "shards"):
        (tmp_path / kind).mkdir()
        data = WRITERS[kind](splits, tmp_path / kind)
        again = tune(data, tmp_path / "again.safetensors", config, force=True)
        assert again.adapter.read_bytes() == first.adapter.read_bytes(), kind


def test_numbers_are_ordered_as_numbers(make_folders, tmp_path):
    file = make_folders(tmp_path, 3) / "red" / "0.png"
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        for i in range(33):
            add(archive, f"{i}.png", file.read_bytes())
            add(archive, f"{i}.cls", str(i % 11).encode())
    labels, _ = load_splits(tmp_path / "one.tar", 0, 0.15, 0.15)
    assert labels == tuple(map(str, range(11)))


def test_one_file_is_split_at_random_as_folders_are(splits, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table(splits, "train", "words"), tmp_path / "train.parquet")
    wanted = load_splits(splits / "train", 3, 0.2, 0.1)[1]
    found = load_splits(tmp_path / "train.parquet", 3, 0.2, 0.1)[1]
    assert data_digest(found) == data_digest(wanted)


@pytest.mark.parametrize(("share", "val"), [(0.63, 5), (0.62, 0)])
def test_val_is_drawn_from_train_where_a_file_has_none(splits, tmp_path, share, val):
    """If it has five images a class."""
    root = write_shards(splits, tmp_path)
    for file in root.glob("val-*.tar"):
        file.unlink()
    labels, found = load_splits(root, 0, share, 0.15)
    wanted = {"train": 8 - val, "val": val, "test": 4}
    assert class_counts(labels, found) == {
        name: dict.fromkeys(LABELS, count) for name, count in wanted.items() if count
    }


def test_an_archive_beside_image_folders_is_not_the_data(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 4)
    before = data_digest(load_splits(folder, 0, 0.2, 0.2)[1])
    (folder / "backup.tar").write_bytes(b"not even a tar file")
    (folder / "list.parquet").write_bytes(b"nor this")
    assert data_digest(load_splits(folder, 0, 0.2, 0.2)[1]) == before


def test_pictures_beside_archives_are_not_the_data(splits, tmp_path):
    """As in a clone of a Hugging Face repository, with the pictures of its README."""
    root = write_parquet(splits, tmp_path)
    (root / "assets").mkdir()
    (root / "assets" / "logo.png").write_bytes((splits / "val" / "red" / "0.png").read_bytes())
    assert load_splits(root, 0, 0.15, 0.15)[0] == tuple(NAMES)


def test_a_file_of_a_common_name_beside_class_folders(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 4)
    (folder / "state.json").write_text("{}")
    assert load_splits(folder, 0, 0.2, 0.2)[0] == LABELS


# ---- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("of,mine\n", r"no column of images is known.*--columns image=NAME,label=NAME .*of, mine"),
        ("path,label\n", "no images in there"),
        ("path,label\n{a},red\n{b}\n", "line 3 has 1 columns, expected 2"),
        ("path,label\n{a},red, dark\n", r"line 2 has 3 columns, expected 2; a ',' within a cell"),
        ("path,label,label\n{a},red,1\n", "label and label may both be the label"),
        ("path,label,split,split\n{a},red,test,train\n", "split and split may both be the split"),
        ("path,label\n{a},red,\n{b},\n", "line 3 has no label"),
        ("path,label\n,red\n", "line 2 has no path"),
        ("path,label\n\n{a},red\nx.png,red\n", r"line 4: x\.png: no such file"),
        ("path,label\n{a},red\n{a},blue\n", "line 3: .* stands in line 2 already"),
        ("path,label\n{a},red\n{dots},blue\n", r"line 3: .* stands in line 2 already"),
        ("path,label,split\n{a},red,holdout\n", "line 2: the split is 'holdout', expected train"),
        ("path,label,split\n{a},red,train\n{b},blue,\n", "nothing says which split"),
        (
            "path,label,split\n{a},red,train\n{b},blue,val\n",
            r"val: its classes differ .*\['blue', 'red'\]",
        ),
        ("path,label,split\n{a},red,test\n", "no training images, only test"),
        ("path,label\n{a},red\n{b},red\n", "only one class, 'red'"),
    ],
)
def test_a_csv_that_is_wrong(splits, tmp_path, text, message):
    file = tmp_path / "list.csv"
    a, b = (splits / "train" / label / "0.png" for label in ("red", "blue"))
    file.write_text(text.format(a=a, b=b, dots=a.parent / ".." / "red" / "0.png"))
    assert_unreadable(file, rf"(?s)(list\.csv|0\.png).*({message})")


def test_a_csv_that_is_no_text(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,red\n")
    assert_unreadable(tmp_path / "list.csv", r"list\.csv: not a CSV file in UTF-8")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"x")], "the sample a has no label"),
        ([("a.cls", b"1")], "the sample a has no image"),
        ([("a.png", b"x"), ("a.json", b'{"caption": "red"}')], "the sample a has no label"),
        ([("a.png", b"x"), ("a.json", b'{"label": [1]}')], r"a\.png: its label is \[1\]"),
        ([("a.png", b"x"), ("a.json", b'{"label"')], r"a\.json is broken"),
        ([("a.png", b"x"), ("a.cls", b"")], r"a\.png: its label is ''"),
        ([("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")], "a has two images, a.png and a.jpg"),
        ([("a.png", b"x"), ("a.cls", b"1"), ("b.png", b"x"), ("b.cls", b"red")], "some are names"),
        ([("readme", b"")], "no images in there"),
    ],
)
def test_a_shard_that_is_wrong(tmp_path, members, message):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, content in members:
            add(archive, name, content)
    assert_unreadable(tmp_path / "s.tar", message)


def test_shards_that_are_no_plain_tar_files(splits, tmp_path):
    assert_unreadable(
        write_shards(splits, tmp_path, mode="w:gz"), r"tar: not a whole plain tar file"
    )


def test_a_shard_that_ends_early(splits, tmp_path):
    root = write_shards(splits, tmp_path)
    file = root / "train-000000.tar"
    file.write_bytes(file.read_bytes()[:7000])
    assert_unreadable(root, r"train-000000\.tar: not a whole plain tar file")


def test_a_shard_that_was_cut_since(splits, tmp_path):
    root = write_shards(splits, tmp_path)
    train = load_splits(root, 0, 0.15, 0.15)[1]["train"]
    file = root / "train-000001.tar"
    file.write_bytes(file.read_bytes()[:-20000])
    with pytest.raises(DataError, match=r"train-000001\.tar: \d\.png: the archive ends within"):
        DataSet(train, PREPROCESS).prepared(np.arange(len(train.images)))


def test_class_names_that_are_wrong(splits, tmp_path):
    root = write_shards(splits, tmp_path, "names")
    (root / "classnames.txt").write_text("crane\nblue\ncrane\n")
    assert_unreadable(root, "2 classes are called 'crane'")
    (root / "classnames.txt").write_bytes(b"gr\xfcn\nblue\nred\n")
    assert_unreadable(root, r"classnames\.txt: not a text in UTF-8")


def test_class_names_of_a_windows_editor(splits, tmp_path):
    root = write_shards(splits, tmp_path, "names")
    (root / "classnames.txt").write_bytes("\r\n".join([*NAMES, "", "", ""]).encode("utf-8-sig"))
    assert load_splits(root, 0, 0.15, 0.15)[0] == tuple(NAMES)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_labels_of_a_sample_cls_counts(make_folders, tmp_path, order):
    file = make_folders(tmp_path, 3) / "red" / "0.png"
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        for i in range(6):
            labels = [(f"{i}.cls", b"%d" % (i % 2)), (f"{i}.json", b'{"label": 7}')]
            for name, content in [(f"{i}.png", file.read_bytes()), *labels[::order]]:
                add(archive, name, content)
    assert load_splits(tmp_path / "one.tar", 0, 0.15, 0.15)[0] == ("0", "1")


def test_a_number_without_a_name(splits, tmp_path):
    root = write_shards(splits, tmp_path, "names")
    (root / "classnames.txt").write_text("red\nblue\n")
    assert_unreadable(root, r"tar: \d\.png: its label is 2, expected 0 to 1")


def test_a_broken_image_in_an_archive_is_named(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for i in range(6):
            add(archive, f"{i}.png", b"these are not pixels")
            add(archive, f"{i}.cls", b"%d" % (i % 2))
    train = load_splits(tmp_path / "s.tar", 0, 0.15, 0.15)[1]["train"]
    with pytest.raises(DataError, match=r"s\.tar: \d\.png: not an image"):
        DataSet(train, PREPROCESS).prepared(np.arange(2))


def test_a_name_that_tells_two_splits(splits, tmp_path):
    root = write_shards(splits, tmp_path)
    (root / "train-000000.tar").rename(root / "train-test.tar")
    assert_unreadable(root, r"train-test\.tar: the name tells two splits, test and train")


def test_a_broken_test_image_is_found_before_the_training(make_folders, make_config, tmp_path):
    for name in ("train", "val", "test", "ood"):
        make_folders(tmp_path / "d" / name, 3)
    for split in ("ood", "test"):
        image = tmp_path / "d" / split / "red" / "1.png"
        image.write_bytes(image.read_bytes()[:100])
        with pytest.raises(DataError, match=rf"{split}/red/1\.png: the image is broken"):
            tune(tmp_path / "d", tmp_path / "a.safetensors", make_config(method="linear"))
        assert [path.name for path in tmp_path.iterdir()] == ["d"]
        image.write_bytes((image.parent / "0.png").read_bytes())


def test_what_is_no_data_set(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert_unreadable(
        tmp_path / "notes.txt", r"notes\.txt: not a data set .*\.csv, \.tsv, .*\.parquet, \.tar"
    )
    assert_unreadable(tmp_path / "nowhere", r"nowhere: no such folder or file$")
    shards = tmp_path / "train-{000000..000009}.tar"
    assert_unreadable(shards, rf"no such folder or file\. Of shards pass the folder, {tmp_path}$")


def test_folders_may_have_a_split_of_the_usual_name_only(make_folders, tmp_path):
    """val/ without train/ is a slip; folders of classes alone have no split."""
    make_folders(tmp_path / "a", 1)
    found = read_splits(tmp_path / "a")
    assert {split: list(classes) for split, classes in found.items()} == {
        "": ["blue", "green", "red"]
    }
    make_folders(tmp_path / "b" / "val", 1)
    make_folders(tmp_path / "b" / "ood", 1)
    with pytest.raises(DataError, match="has val, ood but no train/"):
        read_splits(tmp_path / "b")


def test_a_class_that_one_split_lacks(make_folders, tmp_path):
    """Whoever draws up the splits says what is odd about them."""
    for split in ("train", "val", "ood"):
        make_folders(tmp_path / split, 1)
    (tmp_path / "ood" / "red").rename(tmp_path / "ood" / "pink")
    assert list(read_splits(tmp_path)["ood"]) == ["blue", "green", "pink"]
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "pink")
    assert list(read_splits(tmp_path)["val"]) == ["blue", "green", "pink"]


def test_a_saved_data_set_is_one_before_its_folders_are(splits, tmp_path):
    """Its train/ holds arrow files, no classes."""
    found = read_splits(write_saved(splits, tmp_path))
    assert sum(len(images) for images in found["train"].values()) == 24


def test_a_class_folder_that_is_a_link_to_elsewhere(make_folders, tmp_path, capsys):
    data = make_folders(tmp_path / "d", 4)
    (data / "red").rename(tmp_path / "album")
    (data / "red").symlink_to(tmp_path / "album")
    with pytest.raises(
        DataError, match=r"4 files lie outside .*red/0\.png \(in truth .*album/0\.png"
    ):
        load_splits(data, 0, 0.2, 0.2)
    assert load_splits(data, 0, 0.2, 0.2, allow_outside=True)[0] == LABELS
    assert "4 files lie outside" in capsys.readouterr().err


def test_a_class_whose_name_is_not_utf8_is_refused(make_folders, tmp_path):
    data = make_folders(tmp_path / "d", 4)
    (data / "red").rename(data / "re\udcff")
    with pytest.raises(DataError, match="is not UTF-8; rename the class"):
        load_splits(data, 0, 0.2, 0.2)


def test_an_image_whose_name_is_not_utf8(make_folders, tmp_path):
    data = make_folders(tmp_path / "d", 4)
    (data / "red" / "0.png").rename(data / "red" / "0\udcff.png")
    found = load_splits(data, 0, 0.2, 0.2)[1]
    assert len(data_digest(found)) == 64
