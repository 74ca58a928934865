from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
from vptkit.errors import DataError  # noqa: E402
from vptkit.runtime.inputs import image_tables  # noqa: E402
from vptkit.runtime.inputs.image_tables import forget_table, opened_table  # noqa: E402


@pytest.fixture(autouse=True)
def none_open():
    image_tables._tables.clear()


def images_of(count, size=50):
    rng = np.random.default_rng(0)
    return [rng.bytes(size) for _ in range(count)]


def written(file, images, **options):
    parquet.write_table(pa.table({"image": images}), file, **options)
    return file


def content(table, row):
    return table.take(row)[0].to_pybytes()


@pytest.mark.parametrize("group", [7, 1000])
@pytest.mark.parametrize("portion", [1, 10 << 20])
def test_rows_in_any_order(tmp_path, monkeypatch, group, portion):
    monkeypatch.setattr(image_tables, "_PORTION", portion)
    images = images_of(100)
    table = opened_table(written(tmp_path / "a.parquet", images, row_group_size=group), None)
    assert table.rows == 100
    order = [*range(20), 50, 49, 99, 0, 0, *range(30, 70)]
    assert [content(table, row) for row in order] == [images[row] for row in order]
    for row in (-1, 100):
        with pytest.raises(DataError, match=rf"a\.parquet: has no row {row}"):
            table.take(row)


def test_many_threads_read_each_row_once(tmp_path, monkeypatch):
    """In order but for the threads' differences, no part is unpacked twice."""
    monkeypatch.setattr(image_tables, "_PORTION", 500)
    images = images_of(400)
    table = opened_table(written(tmp_path / "a.parquet", images, row_group_size=40), None)
    kept, unpack = [], table._keep
    monkeypatch.setattr(table, "_keep", lambda *a: (kept.append(len(a[0])), unpack(*a)))
    found, rows = {}, iter(range(400))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                row = next(rows, None)
            if row is None:
                return
            found[row] = content(table, row)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[row] for row in range(400)] == images
    assert sum(kept) < 800  # not once more for each row that came out of turn


def test_what_is_never_taken_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(image_tables, "_PORTION", 1000)
    monkeypatch.setattr(image_tables, "_ROOM", 5000)
    images = images_of(1000, 100)
    table = opened_table(written(tmp_path / "a.parquet", images), None)
    for row in range(0, 1000, 10):
        assert content(table, row) == images[row]
        assert table._held <= 5000 + 1000
    assert content(table, 1) == images[1]


@pytest.mark.parametrize("group", [200, 5000])
def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path, group):
    """Of 20 MB some are: pyarrow would keep all row groups that it read, or a large one."""
    file = written(
        tmp_path / "a.parquet",
        images_of(2000, 10_000),
        row_group_size=group,
        write_batch_size=64,
        use_dictionary=False,
    )
    table, before, most = opened_table(file, None), pa.total_allocated_bytes(), 0
    for row in range(table.rows):
        table.take(row)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 15 << 20


def test_a_file_that_changes_is_read_as_it_is(tmp_path):
    file = written(tmp_path / "a.parquet", [b"one"])
    assert content(opened_table(file, None), 0) == b"one"
    assert opened_table(file, None) is opened_table(file, None)
    written(file, [b"two", b"three"])
    assert content(opened_table(file, None), 0) == b"two"
    forget_table(file)
    assert not image_tables._tables


def test_few_files_stay_open(tmp_path):
    for number in range(9):
        file = written(tmp_path / f"{number}.parquet", [bytes([number])])
        assert content(opened_table(file, None), 0) == bytes([number])
    assert len(image_tables._tables) == 4


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"text": ["x"]}, None, r"expected one column of images .* It has text \(string\)"),
        ({"a": [b"x"], "b": [b"x"]}, None, r"say --columns image=NAME"),
        ({"a": [b"x"]}, "b", r"has no column of images 'b'"),
        ({"a": ["x"]}, "a", r"has no column of images 'a'"),
    ],
)
def test_the_column_of_images(tmp_path, columns, asked, message):
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        opened_table(tmp_path / "a.parquet", asked)


def test_a_column_that_the_user_names(tmp_path):
    table = pa.table({"image": [b"no"], "photo": [b"yes"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert content(opened_table(tmp_path / "a.parquet", "photo"), 0) == b"yes"
    assert content(opened_table(tmp_path / "a.parquet", None), 0) == b"no"


@pytest.mark.parametrize("change", ["cut", "rubbish", "empty", "gone"])
def test_what_is_no_parquet_file(tmp_path, change):
    file = written(tmp_path / "a.parquet", images_of(20))
    whole = file.read_bytes()
    file.unlink()
    if change != "gone":
        file.write_bytes({"cut": whole[:-9], "rubbish": b"x" * 99, "empty": b""}[change])
    with pytest.raises(DataError, match=r"a\.parquet: "):
        opened_table(file, None)


def test_damage_within_is_told_and_the_rest_is_read(tmp_path):
    images = images_of(40, 2000)
    file = written(tmp_path / "a.parquet", images, row_group_size=10, compression="zstd")
    group = parquet.ParquetFile(file).metadata.row_group(1).column(0)
    damaged = bytearray(file.read_bytes())
    place = group.dictionary_page_offset or group.data_page_offset
    damaged[place + 40 : place + 400] = bytes(360)
    file.write_bytes(bytes(damaged))
    table, good = opened_table(file, None), 0
    for row in range(40):
        with contextlib.suppress(DataError):
            good += content(table, row) == images[row]
    assert good >= 30
