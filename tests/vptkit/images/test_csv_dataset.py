"""CSV files of paths and labels."""

from __future__ import annotations

import pytest

from tests.support.image_archives import png
from vptkit.images.dataset_files import read_data_files


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
