from __future__ import annotations

from pathlib import Path

import pytest

from vptkit.errors import DataError
from vptkit.images.image_file import PackedImage
from vptkit.runtime.inputs.lookup import LostImage
from vptkit.runtime.inputs.row_images import RowImage
from vptkit.runtime.inputs.tar_images import TarImage
from vptkit.runtime.ray_data.image_lines import image_of, line_of_image
from vptkit.runtime.stores.stored_image import StoredImage

IMAGES = (
    Path("a b.png"),
    Path("/odd\n\udcff.png"),
    TarImage(Path("x/\udcff.tar"), "a/ö\n.jpg", 512, 99),
    TarImage("s3://bucket/x.tar", "a.jpg", 0, 0),
    RowImage(Path("t.parquet"), 3),
    RowImage("memory://t.parquet", 3, "photo", allow_outside=True),
    LostImage("list.csv: line 3", "no such file"),
    StoredImage("s3://bucket/x.jpg", 7),
    StoredImage("https://host/x.jpg?token=1"),
)


@pytest.mark.parametrize("image", IMAGES, ids=[type(image).__name__ for image in IMAGES])
def test_images_come_back_as_they_were(image):
    line = line_of_image(image)
    assert line.count(b"\n") == 1
    found = image_of(line)
    assert type(found) is type(image)
    assert found == image
    assert (str(found), found.name) == (str(image), image.name)
    assert getattr(found, "size", None) == getattr(image, "size", None)


def test_what_lies_nowhere_is_refused():
    with pytest.raises(DataError, match=r"a\.tar: x\.png: --ray-address takes images that lie in"):
        line_of_image(PackedImage(Path("a.tar"), "x.png", 0, 1))
