from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vptkit.errors import DataError, OutputError
from vptkit.runtime.ray_data.image_list import ImageList, ImageListWriter

NAMES = [Path(name) for name in ("a.png", "ä/ö.png", "odd\n\udcff.png", "b c.png", "x'\"\\.png")]


def listed(folder, names=NAMES, batch=2, before=0):
    writer = ImageListWriter(folder, before)
    writer.extend(iter(names), batch)
    return writer


def test_names_come_back_as_they_were(tmp_path):
    writer = listed(tmp_path)
    assert (writer.batches, writer.images) == (3, 5)
    found = ImageList(tmp_path, 3)
    assert list(found) == NAMES
    assert [found.batch(i) for i in range(3)] == [NAMES[:2], NAMES[2:4], NAMES[4:]]
    assert [(found.first(i), found.size(i)) for i in range(3)] == [(0, 2), (2, 2), (4, 1)]


def test_a_list_grows_behind_what_counts(tmp_path):
    listed(tmp_path)  # of which a killed run made a note of two batches only
    writer = listed(tmp_path, NAMES[:3], before=2)
    assert (writer.batches, writer.images) == (4, 7)
    assert list(ImageList(tmp_path, 4)) == NAMES[:4] + NAMES[:3]
    assert list(ImageList(tmp_path, 3)) == NAMES[:4] + NAMES[:2]


def test_half_a_row_is_none(tmp_path):
    listed(tmp_path)
    ends = tmp_path / "batches.bin"
    ends.write_bytes(ends.read_bytes()[:-3])
    assert list(ImageList(tmp_path, 2)) == NAMES[:4]
    with pytest.raises(DataError, match="2 batches of images, expected 3"):
        ImageList(tmp_path, 3)
    with pytest.raises(OutputError, match="2 batches, expected 3"):
        ImageListWriter(tmp_path, 3)


def test_nothing_is_listed_yet(tmp_path):
    assert list(ImageList(tmp_path / "gone", 0)) == []
    with pytest.raises(DataError, match="No such file"):
        ImageList(tmp_path / "gone", 1)


def test_of_many_only_what_is_asked_is_read(tmp_path):
    names = [Path(f"{i}.png") for i in range(10_000)]
    writer = listed(tmp_path, names, batch=8)
    found = ImageList(tmp_path, writer.batches)
    for i in (0, 700, 1249):
        assert found.batch(i) == names[8 * i : 8 * i + 8]
    assert np.fromfile(tmp_path / "batches.bin", "<u8").shape == (2500,)
