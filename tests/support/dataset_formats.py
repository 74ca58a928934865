"""Writers of one set of images in each format, and a refusal to read one."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from vptkit.errors import DataError  # noqa: E402
from vptkit.images.preprocess import Preprocess  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402

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


def assert_unreadable(data: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_splits(data, 0, 0.15, 0.15, allow_outside=True)
