from __future__ import annotations

import pytest

from vptkit.errors import DataError
from vptkit.images.broken_images import name_within, require_whole, skipped_text
from vptkit.images.image_file import PackedImage


def test_all_are_named(tmp_path):
    require_whole(tmp_path, [], 5)
    with pytest.raises(
        DataError, match=r"d: 2 of 9 images cannot be read\. --skip-broken .*: a: x; b: y$"
    ):
        require_whole(tmp_path / "d", ["a: x", "b: y"], 9)
    with pytest.raises(DataError, match=r"999: x; and 500 more$"):
        require_whole(tmp_path, [f"{i}: x" for i in range(1500)], 1500)


def test_the_first_that_were_skipped_are_named_within_the_data(tmp_path):
    images = [tmp_path / "red" / f"{i}.png" for i in range(2000)]
    told = skipped_text(tmp_path, images)
    assert told.startswith("2,000 broken images were skipped: red/0.png; ")
    assert told.endswith("red/4.png; and 1,995 more")
    assert (
        skipped_text(tmp_path / "list.csv", images[:1]) == "1 broken image was skipped: red/0.png"
    )
    (tmp_path / "other").mkdir()
    assert name_within(tmp_path / "other", images[3]) == "3.png"
    assert name_within(tmp_path, PackedImage(tmp_path / "0.tar", "a.jpg", 0, 1)) == "a.jpg"
