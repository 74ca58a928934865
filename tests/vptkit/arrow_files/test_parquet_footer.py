"""Footers of Parquet files: as pyarrow reads them, without the end that it makes of some."""

from __future__ import annotations

import sys

import pytest

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
from tests.support.children import run_child  # noqa: E402
from tests.support.dataset_formats import assert_unreadable  # noqa: E402
from vptkit.arrow_files.parquet_footer import read_row_groups  # noqa: E402


def written(file, **options):
    images = pa.array([{"bytes": bytes([i] * 9), "path": str(i)} for i in range(10)])
    table = pa.table({"image": images, "label": [[i, i + 1] for i in range(10)]})
    parquet.write_table(table, file, row_group_size=4, **options)
    return file


def paths_of(file):
    schema = parquet.ParquetFile(file).metadata.schema
    return [schema.column(i).path for i in range(len(schema))]


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "write_statistics": False}])
def test_as_pyarrow_reads_them(tmp_path, options):
    file = written(tmp_path / "a.parquet", **options)
    metadata = parquet.ParquetFile(file).metadata
    groups = read_row_groups(file, paths_of(file))
    assert [group.rows for group in groups] == [4, 4, 2]
    for i, group in enumerate(groups):
        for j, chunk in enumerate(group.columns):
            other = metadata.row_group(i).column(j)
            begin = other.dictionary_page_offset or other.data_page_offset
            size = other.total_compressed_size
            assert chunk == (other.path_in_schema, begin, begin + size)


@pytest.mark.slow
def test_parts_that_do_not_fit_together_do_not_end_the_process(tmp_path):
    """Each byte of the schema in turn: nothing but answers and messages."""
    table = pa.table({"image": [b"x", b"y"], "label": [[1, 2], [3]]})
    file = tmp_path / "a.parquet"
    parquet.write_table(table, file)
    code = f"""
from pathlib import Path
from vptkit.errors import DataError
from vptkit.tune.data.arrow_dataset import read_parquet
file = Path({str(file)!r})
whole = file.read_bytes()
begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for i in range(begin, begin + 120):
    file.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
    try:
        list(read_parquet([file], file.parent).rows)
    except DataError:
        pass
print("through")
"""
    assert run_child([sys.executable, "-c", code]).stdout.strip() == "through"


def test_chunks_under_other_names(tmp_path):
    """pyarrow reads them by their place."""
    file = written(tmp_path / "a.parquet")
    content = file.read_bytes()
    place = content.rindex(b"bytes", 0, content.rindex(b"ARROW:schema"))
    file.write_bytes(content[:place] + b"bytez" + content[place + 5 :])
    assert_unreadable(file, "its row groups have other columns than its schema")
