"""Against fsspec's store in memory; S3 stands in tests/integration/test_object_stores.py."""

from __future__ import annotations

import pytest

from tests.support.image_archives import png, write_tar
from vptkit.errors import DataError
from vptkit.runtime.inputs.lookup import Lookup
from vptkit.runtime.inputs.store_listing import walk_store

fsspec = pytest.importorskip("fsspec")
NAMES = ("a.jpg", "b.PNG", "in/c.webp", "in/deep/d.tif", "notes.txt", ".hidden/e.jpg", "in/.f.jpg")


@pytest.fixture
def store(tmp_path):
    store = fsspec.filesystem("memory")
    for name in NAMES:
        store.pipe_file(f"/bucket/x/{name}", b"1")
    store.pipe_file("/bucket/other.jpg", b"1")
    for number in range(3):
        file = write_tar(tmp_path / "s.tar", {f"{number}.png": png(number), "n.npy": b"x"})
        store.pipe_file(f"/bucket/shards/s-{number}.tar", file.read_bytes())
    yield store
    store.rm("/bucket", recursive=True)


def walked(address):
    lookup = Lookup()
    found = [str(image).removeprefix("memory://bucket/") for image in walk_store(address, lookup)]
    return found, dict(lookup.skipped), lookup.broken


ALL = ["x/a.jpg", "x/b.PNG", "x/in/c.webp", "x/in/deep/d.tif"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("memory://bucket/x/", ALL),
        ("memory://bucket/x", ALL),
        ("memory://bucket/x/in/", ALL[2:]),
        ("memory://bucket/x/a.jpg", ALL[:1]),
        ("memory://bucket/x/*.jpg", ALL[:1]),
        ("memory://bucket/*/*.jpg", ALL[:1]),
        ("memory://bucket/x/i*", ALL[2:]),
        ("memory://bucket/x/[ab].*", ALL[:2]),
        ("memory://bucket/**/*.tif", ALL[3:]),
    ],
)
def test_addresses(store, address, expected):
    assert walked(address)[0] == expected


def test_what_is_no_image_is_counted(store):
    assert walked("memory://bucket/x/")[1] == {".txt": 1}


@pytest.mark.parametrize("address", ["shards/", "shards/*.tar", "shards/s-*.tar"])
def test_archives(store, address):
    found, skipped, _ = walked(f"memory://bucket/{address}")
    assert found == [f"shards/s-{number}.tar: {number}.png" for number in range(3)]
    assert skipped == {".npy": 3}


def test_an_archive_that_is_broken_among_others(store):
    store.pipe_file("/bucket/shards/s-1.tar", b"rubbish")
    found, _, (fault,) = walked("memory://bucket/shards/*.tar")
    assert len(found) == 2
    assert fault.startswith("memory://bucket/shards/s-1.tar: not a whole plain tar file")


def test_lists_and_tables(store, tmp_path):
    store.pipe_file("/bucket/x/l.csv", b"path,label\na.jpg,1\nin/c.webp,2\n,3\n../other.jpg,4\n")
    found, _, _ = walked("memory://bucket/x/l.csv")
    assert found == ["x/a.jpg", "x/in/c.webp", "x/l.csv: line 4", "x/l.csv: line 5"]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"image": [png(1), png(2)]})
    for images in (table, table.slice(1)):  # what changed is read anew
        parquet.write_table(images, tmp_path / "t.parquet")
        store.pipe_file("/bucket/t.parquet", (tmp_path / "t.parquet").read_bytes())
        found = list(walk_store("memory://bucket/t.parquet", Lookup()))
        assert [str(image) for image in found] == [
            f"memory://bucket/t.parquet: row {row}" for row in range(len(images))
        ]
        assert found[-1].read_bytes() == png(2)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://bucket/nothing/", "no such object|no images there"),
        ("memory://bucket/x/z.jpg", r"memory://bucket/x/z\.jpg: no such object"),
        ("memory://bucket/z", "no such object|no images there"),
        ("memory://bucket/*.gif", "no images there"),
        ("memory://bucket/a**b/*", "not a pattern"),
        ("memory://bucket/z.tar", r"z\.tar: no such object"),
        ("memory://bucket/z.csv", r"z\.csv: no such object"),
    ],
)
def test_what_is_not_there(store, address, message):
    with pytest.raises(DataError, match=message):
        walked(address)
