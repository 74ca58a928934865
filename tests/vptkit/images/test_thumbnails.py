"""Small pictures inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from vptkit.images.thumbnails import thumbnail


def test_a_thumbnail_is_small_and_holds_pixels_only(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (900, 300), "red").save(tmp_path / "a.jpg", exif=exif, comment=b"secret")
    uri = thumbnail(tmp_path / "a.jpg")
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    data = base64.b64decode(body)
    assert [part for part in (b"where I live", b"secret", b"Exif") if part in data] == []
    with Image.open(io.BytesIO(data)) as small:
        assert small.size == (53, 160)
    assert len(uri) < 5000


def test_a_broken_image_has_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    assert thumbnail(tmp_path / "a.png") is None
    assert thumbnail(tmp_path / "missing.png") is None
