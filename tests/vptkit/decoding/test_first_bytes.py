from __future__ import annotations

import pytest

from vptkit.decoding.first_bytes import what_it_is
from vptkit.errors import DataError
from vptkit.images.image_file import open_image


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is HEIC; convert it to JPEG first"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "it is a video"),
        (b"RIFF\0\0\0\0AVI LIST", "it is a video or a sound"),
        (b"RIFF\0\0\0\0WEBPVP8 ", ""),
        (b"%PDF-1.7", "it is a PDF"),
        (b"\n <!doctype HTML><p>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"no image", ""),
    ],
)
def test_what_a_file_is(tmp_path, content, kind):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    assert what_it_is(path).startswith(kind) or kind in what_it_is(path)
    assert bool(what_it_is(path)) == bool(kind)
    with pytest.raises(DataError, match=kind or "not an image that Pillow can read|broken"):
        open_image(path)


def test_of_what_is_no_file_nothing_is_known(tmp_path):
    assert what_it_is(tmp_path / "nowhere") == what_it_is(tmp_path) == what_it_is("text") == ""
