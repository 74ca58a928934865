"""Shards: an image is found at its place in the archive."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
import pytest

from tests.support.image_archives import png, write_tar
from vptkit.datasets.dataset_files import read_data_files
from vptkit.datasets.multilabel_dataset import read_multilabel
from vptkit.datasets.webdataset import read_shards
from vptkit.errors import DataError
from vptkit.images.image_file import PackedImage, open_image
from vptkit.images.labelled_images import group_rows


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
    with pytest.raises(DataError, match=r"a\.tar: no such file"):
        open_image(image)


def shard(folder, **members):
    named = {name.replace("_", "."): content for name, content in members.items()}
    return write_tar(folder / "s.tar", named)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a_png": b"x"}, r"the sample a has no label"),
        ({"a_cls": b"1"}, r"the sample a has no image"),
        ({"a_png": b"x", "a_jpg": b"y", "a_cls": b"1"}, r"a has two images, a\.png and a\.jpg"),
        ({"a_png": b"x", "a_json": b'{"label": 1'}, r"a\.json is broken"),
        ({"a_png": b"x", "a_json": b'{"caption": 1}'}, r"the sample a has no label"),
    ],
)
def test_a_sample_that_is_wrong_is_named(tmp_path, members, message):
    with pytest.raises(DataError, match=rf"s\.tar: .*{message}"):
        group_rows(*read_shards([shard(tmp_path, **members)], tmp_path))


def test_names_stand_beside_the_shards(tmp_path):
    """A .cls counts before a .json; numbers point into classnames.txt."""
    file = shard(tmp_path, a_png=png(1), a_json=b'{"label": 0}', a_cls=b" 1\n")
    assert list(group_rows(*read_shards([file], tmp_path))[""]) == ["1"]
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    assert list(group_rows(*read_shards([file], tmp_path))[""]["dog"])
    (tmp_path / "classnames.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"classnames\.txt: not a text in UTF-8"):
        group_rows(*read_shards([file], tmp_path))


def test_a_compressed_shard(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"not a whole plain tar file: .*decompress it"):
        group_rows(*read_shards([tmp_path / "s.tar"], tmp_path))
    with pytest.raises(DataError, match=r"t\.tar: no such file"):
        group_rows(*read_shards([tmp_path / "t.tar"], tmp_path))


# ---- archives from strangers --------------------------------------------------------------------


def header(name, size, kind=b"0"):
    member = tarfile.TarInfo(name)
    member.size, member.type = 0, kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (
        b"%011o\0" % size
        if 0 <= size < 8**11
        else b"\xff" + (size & (1 << 88) - 1).to_bytes(11, "big")
        if size < 0
        else b"\x80" + size.to_bytes(11, "big")
    )
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", ["cls", "json", "long name", "pax", "image"])
def test_a_hole_of_a_terabyte_is_not_read(tmp_path, kind):
    """A sparse file: it takes no room on disk, and would take all memory."""
    name, letter = {
        "cls": ("a.cls", b"0"),
        "json": ("a.json", b"0"),
        "long name": ("././@LongLink", b"L"),
        "pax": ("pax", b"x"),
        "image": ("a.png", b"0"),
    }[kind]
    size = 1 << 40
    with (tmp_path / "s.tar").open("wb") as stream:
        if kind == "image":
            size = 1 << 39
            stream.write(header("a.cls", 1) + b"0".ljust(512, b"\0"))
        stream.write(header(name, size, letter))
        stream.truncate(size + (1 << 20))
    with pytest.raises(DataError, match=r"s\.tar"):
        next(iter(group_rows(*read_shards([tmp_path / "s.tar"], tmp_path))[""]["0"])).read_bytes()


@pytest.mark.parametrize("size", [-512, -1024, -(1 << 40), 1 << 80])
@pytest.mark.parametrize("letter", [b"0", b"L", b"x", b"5"])
def test_a_size_that_leads_back_or_nowhere(tmp_path, size, letter):
    (tmp_path / "s.tar").write_bytes(header("a.cls", size, letter) + bytes(4096))
    with pytest.raises(DataError, match=r"s\.tar: not a whole plain tar file|no images in there"):
        group_rows(*read_shards([tmp_path / "s.tar"], tmp_path))


def test_headers_on_headers_deeper_than_pythons_stack(tmp_path):
    one = header("././@LongLink", 2, b"L") + b"a\0".ljust(512, b"\0")
    (tmp_path / "s.tar").write_bytes(one * 3000 + bytes(1024))
    with pytest.raises(DataError, match=r"s\.tar: not a whole plain tar file"):
        group_rows(*read_shards([tmp_path / "s.tar"], tmp_path))


def sparse(tmp_path):
    record = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.name=a.cls\n"
    record += b"38 GNU.sparse.realsize=1099511627776\n"
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("x")
        member.type, member.size = tarfile.XHDTYPE, len(record)
        archive.addfile(member, io.BytesIO(record))
        body = b"1\n1099511627775\n1\n".ljust(512, b"\0") + b"1"
        member = tarfile.TarInfo("a.cls")
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return tmp_path / "s.tar"


def test_a_sparse_label_is_refused_as_a_sparse_image_is(tmp_path):
    with pytest.raises(DataError, match="sparse"):
        group_rows(*read_shards([sparse(tmp_path)], tmp_path))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a_json": b"[" * 100_000}, "a.json is broken"),
        ({"a_json": b'{"label": ' + b"1" * 5000 + b"}"}, "a.json is broken"),
        ({"a_cls": b"1" * 900}, r"s\.tar"),  # a number without a name, or of no class
        ({"a_cls": b"1" * 5000}, "its label has 5,000 characters"),
        ({"a_cls": b"x" * (2 << 20)}, "a.cls has 2097152 bytes, which no label has"),
        ({"a_cls": b"x" * 1001}, "its label has 1,001 characters, expected at most 1,000"),
        ({"a_json": b'{"label": "\\ud800"}'}, "is not UTF-8; rename the class"),
    ],
)
def test_labels_that_are_none(tmp_path, members, message):
    (tmp_path / "classnames.txt").write_text("cat\n")
    with pytest.raises(DataError, match=message):
        group_rows(*read_shards([shard(tmp_path, a_png=png(1), **members)], tmp_path))


def test_shards_and_class_names_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(DataError, match=r"s\.tar: a FIFO, expected a regular file"):
        group_rows(*read_shards([tmp_path / "s.tar"], tmp_path))
    (tmp_path / "s.tar").unlink()
    file = shard(tmp_path, a_png=png(1), a_cls=b"0")
    (tmp_path / "classnames.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"classnames\.txt: a device, expected a regular file"):
        group_rows(*read_shards([file], tmp_path))
    (tmp_path / "classnames.txt").unlink()
    with (tmp_path / "classnames.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(DataError, match=r"classnames\.txt: more than 16777216 bytes"):
        group_rows(*read_shards([file], tmp_path))


def test_several_labels_a_sample(tmp_path):
    """A list counts before a .cls then; one that is missing is no empty one."""
    members = {
        "a.json": b'{"labels": [1, "0"]}',
        "b.json": b'{"label": [1]}',
        "b.cls": b"0",
        "c.json": b'{"labels": []}',
        "d.cls": b"0",
    }
    images = {f"{name}.png": png(1) for name in "abcd"}
    (tmp_path / "classnames.txt").write_text("cat\ndog\nbird\n")
    file = write_tar(tmp_path / "s.tar", members | images)
    found = read_multilabel(file, dict)
    assert found.labels == ("cat", "dog", "bird")
    (part,) = found.splits.values()
    said = {i.name[0]: row.tolist() for i, row in zip(part.images, part.truth, strict=True)}
    assert said == {
        "a": [True, True, False],
        "b": [False, True, False],
        "c": [False, False, False],
        "d": [True, False, False],
    }
    with pytest.raises(DataError, match=r"a\.png: its label is \[1, 0\]; .* --task multilabel"):
        read_data_files(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"labels": null}', "the sample a has no label"),
        (b'{"labels": [null]}', r"a\.png: None among its labels"),
        (b'{"labels": [3]}', r"a\.png: its label is 3, expected 0 to 1"),
        (
            b'{"labels": [1, 0, 0]}',
            r"a\.png: its labels are 1, 0, 0, which may be a 0 or 1 for each",
        ),
        (b'{"labels": {"cat": 1}}', r"a\.png: .* among its labels, expected names or numbers"),
    ],
)
def test_several_labels_that_are_wrong(tmp_path, text, message):
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    write_tar(tmp_path / "s.tar", {"a.png": png(1), "a.json": text})
    with pytest.raises(DataError, match=rf"s\.tar: .*{message}"):
        read_multilabel(tmp_path, dict)
