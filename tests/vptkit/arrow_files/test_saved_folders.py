from __future__ import annotations

import json

import pytest

from vptkit.arrow_files.saved_folders import is_saved, require_plain, saved_tables
from vptkit.errors import DataError


def saved(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_tables_of_one_and_of_several_splits(tmp_path):
    one = saved(tmp_path / "one", "a.arrow", "b.arrow")
    assert is_saved(one)
    assert not is_saved(tmp_path)
    assert saved_tables(one) == [("", one / "a.arrow"), ("", one / "b.arrow")]
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["one"]}')
    assert is_saved(tmp_path)
    with pytest.raises(DataError, match="a split is called 'one', expected"):
        saved_tables(tmp_path)
    assert saved_tables(tmp_path, any_split=True) == saved_tables(one)


@pytest.mark.parametrize("name", ["../other", "/etc", "a/b", "", 7, "..", "a\\b"])
def test_names_that_lead_elsewhere(tmp_path, name):
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(DataError, match="not the name of a folder"):
        saved_tables(tmp_path, any_split=True)
    with pytest.raises(DataError, match="not the name of a file beside it"):
        saved_tables(saved(tmp_path / "one", name))


def test_compressed_batches_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    table, file = pa.table({"x": [bytes(1000)]}), tmp_path / "a.arrow"
    for compression, refused in ((None, False), ("zstd", True)):
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_stream(file, table.schema, options=options) as stream:
            stream.write_table(table)
        if refused:
            with pytest.raises(DataError, match="its batches are compressed"):
                require_plain(file, pa.memory_map(str(file)))
        else:
            require_plain(file, pa.memory_map(str(file)))
