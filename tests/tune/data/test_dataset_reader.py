"""The same images as folders, CSV, Parquet, a saved data set and shards: the same pixels come out."""

from __future__ import annotations

import csv
import errno
import io
import json
import sys
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from vptkit.errors import DataError, MissingExtraError, OutputError  # noqa: E402
from vptkit.images.preprocess import Preprocess  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.data import arrow_dataset  # noqa: E402
from vptkit.tune.data.dataset import DataSet  # noqa: E402
from vptkit.tune.data.splits import class_counts, data_digest, load_splits  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREPROCESS = Preprocess(
    input_size=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=0.9
)
LABELS = ("blue", "green", "red")
NAMES = ["red", "blue", "green"]  # as ClassLabel and classnames.txt order them


def entries(folders: Path) -> Iterator[tuple[str, str, Path]]:
    """Split, class and file of each image, in the folders' order."""
    for split in ("train", "val", "test"):
        for label in LABELS:
            for file in sorted((folders / split / label).iterdir()):
                yield split, label, file


# ---- writers ------------------------------------------------------------------------------------


def write_csv(folders: Path, root: Path, delimiter: str = ",") -> Path:
    """Shuffled lines, for the order is that of the paths."""
    lines = [(label, split, file) for split, label, file in entries(folders)]
    np.random.default_rng(0).shuffle(lines)
    file = root / "all.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["author", "label", "path", "split"])
        writer.writerows(["a, b;c", label, path, split] for label, split, path in lines)
    return file


def table(folders: Path, split: str, labels: str):
    """One split as pyarrow's table: labels as ClassLabel's numbers, plain numbers or words."""
    pa = pytest.importorskip("pyarrow")
    rows = [(label, file) for s, label, file in entries(folders) if s == split]
    images = pa.array(
        [{"bytes": file.read_bytes(), "path": file.name} for _, file in rows],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    words = [label for label, _ in rows]
    numbers = [NAMES.index(label) for label in words]
    made = pa.table({"id": range(len(rows)), "image": images})
    made = made.append_column("label", pa.array(words if labels == "words" else numbers))
    features = {"image": {"_type": "Image"}, "id": {"dtype": "int64", "_type": "Value"}}
    if labels == "ClassLabel":
        features["label"] = {"names": NAMES, "_type": "ClassLabel"}
    metadata = json.dumps({"info": {"features": features}})
    return made.replace_schema_metadata({"huggingface": metadata})


def write_parquet(folders: Path, root: Path, labels: str = "ClassLabel") -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    (root / "data").mkdir()
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        whole = table(folders, split, labels)
        for i, part in enumerate((whole.slice(0, 5), whole.slice(5))):
            file = root / "data" / f"{name}-{i:05}-of-00002.parquet"
            parquet.write_table(part, file, row_group_size=4)
    return root


def write_saved(folders: Path, root: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    (root / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        (root / name).mkdir()
        whole = table(folders, split, "ClassLabel")
        files = []
        for i, part in enumerate((whole.slice(0, 5), whole.slice(5))):
            files.append({"filename": f"data-{i:05}-of-00002.arrow"})
            with pa.ipc.new_stream(root / name / files[-1]["filename"], part.schema) as stream:
                stream.write_table(part, max_chunksize=3)
        (root / name / "state.json").write_text(json.dumps({"_data_files": files}))
        (root / name / "dataset_info.json").write_text("{}")
    return root


def write_shards(folders: Path, root: Path, labels: str = "words", mode: str = "w") -> Path:
    """Two shards a split; of each sample the label lies before or behind the image."""
    for split in ("train", "val", "test"):
        rows = [(label, file) for s, label, file in entries(folders) if s == split]
        for i, part in enumerate((rows[:5], rows[5:])):
            with tarfile.open(root / f"{split}-{i:06}.tar", mode) as archive:
                for number, (label, file) in enumerate(part):
                    # the digest takes in the last part of a name only
                    image = (f"{label}/{file.name}", file.read_bytes())
                    said = label if labels == "words" else NAMES.index(label)
                    text = str(said) if number % 2 else json.dumps({"label": said, "other": [1]})
                    suffix = "cls" if number % 2 else "json"
                    sample = [image, (f"{label}/{file.stem}.{suffix}", text.encode())]
                    for name, content in sample if number % 3 else sample[::-1]:
                        add(archive, name, content)
    if labels == "names":
        (root / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    return root


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


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
    found_labels, found = load_splits(WRITERS[kind](splits, tmp_path), 0, 0.15, 0.15)
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
    config = make_config(method="vpt", name="x")
    first = tune(splits, tmp_path / "folders.safetensors", config)
    for kind in ("csv", "parquet of words", "shards"):
        (tmp_path / kind).mkdir()
        data = WRITERS[kind](splits, tmp_path / kind)
        again = tune(data, tmp_path / "again.safetensors", config, force=True)
        assert again.adapter.read_bytes() == first.adapter.read_bytes(), kind


def test_labels_that_are_plain_numbers(splits, tmp_path):
    labels, found = load_splits(write_parquet(splits, tmp_path, "numbers"), 0, 0.15, 0.15)
    assert labels == ("0", "1", "2")
    assert found["train"].images[0].name == "0.png"
    assert found["train"].targets.tolist() == [0] * 8 + [1] * 8 + [2] * 8


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


def test_val_is_drawn_from_train_where_a_file_has_none(splits, tmp_path):
    root = write_shards(splits, tmp_path)
    for file in root.glob("val-*.tar"):
        file.unlink()
    labels, found = load_splits(root, 0, 0.25, 0.15)
    assert class_counts(labels, found) == {
        "train": dict.fromkeys(LABELS, 6),
        "val": dict.fromkeys(LABELS, 2),
        "test": dict.fromkeys(LABELS, 4),
    }


def test_images_that_the_table_only_points_to(splits, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [(label, file) for s, label, file in entries(splits) if s == "train"]
    images = [{"bytes": None, "path": str(file)} for _, file in rows]
    images[0]["bytes"] = rows[0][1].read_bytes()
    made = pa.table({"image": images, "label": [label for label, _ in rows]})
    parquet.write_table(made, tmp_path / "a.parquet")
    found = load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)[1]
    assert data_digest(found) == data_digest(load_splits(splits / "train", 0, 0.15, 0.15)[1])
    images[3]["path"] = "nowhere.png"
    made = pa.table({"image": images, "label": [label for label, _ in rows]})
    parquet.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: holds no bytes of nowhere\.png"):
        load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)


def test_a_column_of_bytes_and_other_names(splits, tmp_path):
    """As in older files: `img` is binary, and of two label columns one is a ClassLabel."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [(label, file) for s, label, file in entries(splits) if s == "train"]
    features = {"kind": {"names": NAMES, "_type": "ClassLabel"}}
    made = pa.table(
        {
            "img": [file.read_bytes() for _, file in rows],
            "kind": [NAMES.index(label) for label, _ in rows],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(made, tmp_path / "a.parquet")
    labels, found = load_splits(tmp_path / "a.parquet", 0, 0.15, 0.15)
    assert labels == tuple(NAMES)
    assert found["train"].images[0].name.startswith("row ")
    assert len(DataSet(found["train"], PREPROCESS).prepared(np.arange(3))) == 3


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


# ---- names of folders ---------------------------------------------------------------------------


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
    found = load_splits(tmp_path, 0, 0.15, 0.15)[1]
    assert data_digest(found) == data_digest(load_splits(splits, 0, 0.15, 0.15)[1])


def test_of_two_names_of_a_split_the_usual_one_counts(splits, tmp_path):
    for name, split in {"train": "train", "val": "val", "dev": "test", "Val": "test"}.items():
        (tmp_path / name).symlink_to(splits / split)
    found = load_splits(tmp_path, 0, 0.15, 0.15)[1]
    assert {image.parents[1].name for image in found["val"].images} == {"val"}


def test_splits_without_train_are_no_classes(make_folders, tmp_path):
    for name in ("validation", "test"):
        make_folders(tmp_path / name, 4)
    refused(tmp_path, "has validation, test but no train/")


def test_a_class_may_be_called_as_a_split_is(make_folders, tmp_path):
    (make_folders(tmp_path, 4) / "red").rename(tmp_path / "training")
    assert load_splits(tmp_path, 0, 0.2, 0.2)[0] == ("blue", "green", "training")


# ---- ood ----------------------------------------------------------------------------------------


def test_ood_is_a_split_that_the_digest_passes_over(make_folders, tmp_path):
    for seed, name in enumerate(("train", "val", "test")):
        make_folders(tmp_path / name, 4, seed)
    before = data_digest(load_splits(tmp_path, 0, 0.15, 0.15)[1])
    make_folders(tmp_path / "ood", 3, 9, classes=2)  # fewer classes are right there, others not
    labels, found = load_splits(tmp_path, 0, 0.15, 0.15)
    assert class_counts(labels, found)["ood"] == {"blue": 3, "green": 3, "red": 0}
    assert data_digest(found) == before
    (tmp_path / "ood" / "blue").rename(tmp_path / "ood" / "bleu")
    with pytest.raises(DataError, match=r"ood has classes that train does not have: \['bleu'\]"):
        load_splits(tmp_path, 0, 0.15, 0.15)


# ---- what goes wrong ----------------------------------------------------------------------------


def refused(data: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_splits(data, 0, 0.15, 0.15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\n", r"first line is 'file,class', expected .* path and label"),
        ("path,label\n", "no images in there"),
        ("path,label\n{a},red\n{b}\n", "line 3 has 1 columns, expected 2"),
        ("path,label\n{a},red, dark\n", r"line 2 has 3 columns, expected 2; a ',' within a cell"),
        ("path,label,label\n{a},red,1\n", "path and label among them, each once"),
        ("path,label,split,split\n{a},red,test,train\n", "path and label among them, each once"),
        ("path,label\n{a},red,\n{b},\n", "line 3 has no label"),
        ("path,label\n,red\n", "line 2 has no path"),
        ("path,label\n\n{a},red\nx.png,red\n", r"line 4: x\.png: no such file"),
        ("path,label\n{a},red\n{a},blue\n", "line 3: .* stands in line 2 already"),
        ("path,label\n{a},red\n{dots},blue\n", r"line 3: .* stands in line 2 already"),
        ("path,label,split\n{a},red,holdout\n", "line 2: the split is 'holdout', expected train"),
        ("path,label,split\n{a},red,train\n{b},blue,\n", "nothing says which split"),
        ("path,label,split\n{a},red,train\n{b},blue,val\n", r"val has classes .*\['blue'\]"),
        ("path,label,split\n{a},red,test\n", "no training images, only test"),
        ("path,label\n{a},red\n{b},red\n", "1 images|2 images are too few"),
    ],
)
def test_a_csv_that_is_wrong(splits, tmp_path, text, message):
    file = tmp_path / "list.csv"
    a, b = (splits / "train" / label / "0.png" for label in ("red", "blue"))
    file.write_text(text.format(a=a, b=b, dots=a.parent / ".." / "red" / "0.png"))
    refused(file, rf"(?s)(list\.csv|0\.png).*({message})")


def test_a_csv_that_is_no_text(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,red\n")
    refused(tmp_path / "list.csv", r"list\.csv: not a CSV file in UTF-8")


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
    refused(tmp_path / "s.tar", message)


def test_shards_that_are_no_plain_tar_files(splits, tmp_path):
    refused(write_shards(splits, tmp_path, mode="w:gz"), r"tar: not a whole plain tar file")


def test_a_shard_that_ends_early(splits, tmp_path):
    root = write_shards(splits, tmp_path)
    file = root / "train-000000.tar"
    file.write_bytes(file.read_bytes()[:7000])
    refused(root, r"train-000000\.tar: not a whole plain tar file")


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
    refused(root, "2 classes are called 'crane'")
    (root / "classnames.txt").write_bytes(b"gr\xfcn\nblue\nred\n")
    refused(root, r"classnames\.txt: not a text in UTF-8")


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
    refused(root, r"tar: \d\.png: its label is 2, expected 0 to 1")


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
    refused(root, r"train-test\.tar: the name tells two splits, test and train")


def test_parquet_that_is_wrong(splits, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"

    def written(**arrays):
        parquet.write_table(pa.table(arrays), file)
        return file

    file.write_bytes(b"nothing of this kind")
    refused(file, r"a\.parquet: ")
    refused(written(text=["a"], label=[1]), r"one column of images.*It has text \(string\), label")
    refused(written(image=[b"a"], kind=[1]), r"and one of labels.*image \(binary\), kind \(int64\)")
    refused(written(image=[b"a", b"b"], label=[1, None]), r"row 1: its label is None")
    refused(written(image=[b"a", b"b"], label=[0.5, 1.0]), r"row 0: its label is 0\.5")
    refused(written(image=[b"a", b"b"], label=[[0, 1], [2]]), r"row 0: its label is \[0, 1\]")
    refused(written(image=[b"a", b"b"], label=[True, False]), r"row 0: its label is True")
    refused(written(image=[b"a", b"b"], label=["x", ""]), r"row 1: its label is ''")
    refused(written(image=[b"a", None], label=[1, 1]), r"row 1: no image")
    refused(written(image=[b"a", b"b"], label=[1, -1]), r"row 1: its label is -1, expected 0")
    refused(written(image=pa.array([], pa.binary()), label=pa.array([], pa.int64())), "no images")


def test_a_disk_that_is_full_for_what_is_unpacked(splits, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    root = write_parquet(splits, tmp_path)
    monkeypatch.setattr(arrow_dataset.tempfile, "TemporaryFile", lambda prefix: Full())
    with pytest.raises(OutputError, match=r"no space left for .*test-00000.*Set TMPDIR"):
        load_splits(root, 0, 0.15, 0.15)


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


def test_a_link_that_leads_nowhere_is_not_left_out(make_folders, tmp_path):
    folder = make_folders(tmp_path / "d", 4)
    (folder / "red" / "0.png").unlink()
    (folder / "red" / "0.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"red/0\.png: No such file"):
        data_digest(load_splits(folder, 0, 0.2, 0.2)[1])


def test_files_with_other_class_names(splits, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table(splits, "train", "ClassLabel"), tmp_path / "train.parquet")
    parquet.write_table(table(splits, "val", "words"), tmp_path / "val.parquet")
    refused(tmp_path, r"val\.parquet: its class names differ")


def test_a_saved_data_set_that_is_wrong(splits, tmp_path):
    root = write_saved(splits, tmp_path)
    arrow = root / "test" / "data-00001-of-00002.arrow"
    arrow.write_bytes(b"no")
    refused(root, r"data-00001-of-00002\.arrow: ")
    arrow.unlink()
    refused(root, r"data-00001-of-00002\.arrow: ")
    (root / "test" / "state.json").write_text("{}")
    refused(root, r"test/state\.json: not as Hugging Face's save_to_disk writes it")
    (root / "dataset_dict.json").write_text('{"splits": ["training", "holdout"]}')
    refused(root, r"dataset_dict\.json: a split is called 'holdout', expected train, val")


def test_what_is_no_data_set(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", r"notes\.txt: not a data set .*\.csv, \.tsv, \.parquet, \.tar")
    refused(tmp_path / "nowhere", r"nowhere: no such folder or file$")
    shards = tmp_path / "train-{000000..000009}.tar"
    refused(shards, rf"no such folder or file\. Of shards pass the folder, {tmp_path}$")


def test_without_pyarrow(splits, tmp_path, monkeypatch):
    root = write_parquet(splits, tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow.*vptkit\[data\]"):
        load_splits(root, 0, 0.15, 0.15)
