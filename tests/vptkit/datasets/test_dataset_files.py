"""Which files are a data set, without torch; tests/tune/data compares the formats' pixels."""

from __future__ import annotations

import pytest

from tests.support.image_archives import png
from vptkit.datasets.dataset_files import read_data_files
from vptkit.errors import DataError


def test_what_is_left_to_others(tmp_path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(png(1))
    assert read_data_files(tmp_path) is None
    assert read_data_files(tmp_path / "nowhere") is None
    with pytest.raises(
        DataError, match=r"a\.png: not a data set .* \.csv, \.tsv, \.jsonl, \.json, \.tar"
    ):
        read_data_files(tmp_path / "red" / "a.png")
