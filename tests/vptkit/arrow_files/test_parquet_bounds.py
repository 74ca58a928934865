"""Small files that would become large ones, refused before they are unpacked."""

from __future__ import annotations

import struct

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.dataset_formats import assert_unreadable  # noqa: E402
from vptkit.arrow_files import parquet_bounds  # noqa: E402
from vptkit.arrow_files.parquet_bounds import rows_at_once  # noqa: E402
from vptkit.arrow_files.parquet_footer import read_row_groups  # noqa: E402
from vptkit.errors import DataError  # noqa: E402
from vptkit.images.labelled_images import group_rows  # noqa: E402
from vptkit.tune.data.arrow_dataset import read_parquet  # noqa: E402


def written(tmp_path, images, **options):
    file = tmp_path / "a.parquet"
    table = pa.table({"image": images, "label": [i % 2 for i in range(len(images))]})
    parquet.write_table(table, file, **options)
    return file


def pages_of(file):
    """Bytes of all pages when they are unpacked, as the footer of an honest file says."""
    chunks = [chunk for group in groups_of(file) for chunk in group.columns]
    found = [page for chunk in chunks for page in _read(file, chunk)]
    return found, sum(chunk.end - chunk.begin for chunk in chunks)


def groups_of(file):
    return read_row_groups(file, ["image", "label"])


def _read(file, chunk):
    with file.open("rb") as stream:
        return list(parquet_bounds._pages(stream, chunk))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_every_page_is_found(tmp_path, version, compression, dictionary):
    random = np.random.default_rng(0)
    images = [random.bytes(int(n)) for n in random.integers(10, 5000, 300)]
    file = written(
        tmp_path,
        images,
        compression=compression,
        use_dictionary=dictionary,
        data_page_version=version,
        data_page_size=4096,
        write_batch_size=10,
        row_group_size=100,
    )
    found, packed = pages_of(file)
    assert len(found) > 10
    assert 0.8 * packed < sum(page.packed for page in found) < packed  # the rest is headers
    values = [page.values for page in found if page.kind != 2]
    assert sum(values) == 2 * 300
    assert rows_at_once(file, groups_of(file), ["image", "label"]) == 64
    (rows,) = group_rows(*read_parquet([file], tmp_path)).values()
    assert sorted(i.read_bytes() for images in rows.values() for i in images) == sorted(images)


def test_large_images_are_unpacked_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "_ROOM", 20 << 20)
    file = written(tmp_path, [bytes(9 << 20), b"x"])
    assert rows_at_once(file, groups_of(file), ["image", "label"]) == 1
    assert rows_at_once(file, groups_of(file), ["label"]) == 64
    (rows,) = group_rows(*read_parquet([file], tmp_path)).values()
    assert len(rows["0"][0].read_bytes()) == 9 << 20


def test_a_large_page_of_many_small_images_is_no_reason(tmp_path):
    """pyarrow looks at a page's size once in 1,024 rows."""
    file = written(tmp_path, [i.to_bytes(2, "big") * 6000 for i in range(1000)], compression="none")
    assert max(page.unpacked for page in pages_of(file)[0]) > 8 << 20
    assert rows_at_once(file, groups_of(file), ["image", "label"]) == 64


def test_a_page_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "_MOST_PAGE", 1 << 20)
    file = written(tmp_path, [bytes(2 << 20), b"x"], compression="zstd")
    before = pa.total_allocated_bytes()
    assert_unreadable(file, r"a\.parquet: a page of 2097\d+ bytes, expected at most 1048576")
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_pages_that_are_too_large_together(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "most_bytes", lambda file: 1 << 20)
    images = [bytes([i]) * 100_000 for i in range(20)]
    file = written(tmp_path, images, compression="zstd", data_page_size=1000)
    assert_unreadable(file, r"a\.parquet: \d+ bytes would be unpacked to \d+ or more")


def test_a_footer_that_lies_is_not_believed(tmp_path, monkeypatch):
    """Of old, pyarrow made room for what the page says."""
    monkeypatch.setattr(parquet_bounds, "_MOST_PAGE", 1 << 20)
    file = written(tmp_path, [b"a" * 1000, b"b" * 1000], compression="zstd", use_dictionary=False)
    (before,) = groups_of(file)  # as they were, for the file grows when it is forged
    chunk = before.columns[0]
    content = bytearray(file.read_bytes())
    place = chunk.begin
    assert content[place : place + 3] == b"\x15\x00\x15"  # type 0, then the size
    assert content[place + 4] < 128  # two bytes, 7 bits each
    claimed = (1 << 31) - 2  # in five bytes, which take the place of statistics
    varint = bytes([(2 * claimed >> s) & 127 | 128 for s in (0, 7, 14, 21)] + [2 * claimed >> 28])
    content[place + 3 : place + 5] = varint
    file.write_bytes(bytes(content))
    with file.open("rb") as stream:
        assert next(parquet_bounds._pages(stream, chunk)).unpacked == claimed
    with pytest.raises(DataError, match="a page of 2147483646 bytes"):
        rows_at_once(file, [before], ["image"])


def test_more_rows_than_bytes(tmp_path):
    file = written(tmp_path, [b"x"] * 100_000)  # one image and a number of repetitions
    assert file.stat().st_size < 100_000
    assert_unreadable(file, r"a\.parquet: 100000 rows in \d+ bytes, which no such file has")


def test_one_image_in_very_many_rows(tmp_path, monkeypatch):
    from vptkit.tune.data import arrow_dataset

    monkeypatch.setattr(arrow_dataset, "most_bytes", lambda file: 1 << 20)
    file = written(tmp_path, [bytes(range(256)) * 64] * 200)
    assert_unreadable(file, r"a\.parquet: its images are more than 1048576 bytes")


def test_a_footer_that_would_fill_the_memory(tmp_path):
    with (tmp_path / "a.parquet").open("wb") as stream:
        stream.write(b"PAR1")
        stream.seek(1 << 33)
        stream.write(struct.pack("<I", (1 << 32) - 1) + b"PAR1")
    assert_unreadable(tmp_path / "a.parquet", r"a\.parquet: a footer of 4294967295 bytes")
