"""The table of parts, and the sentences below it."""

from __future__ import annotations

from vptkit.cli.texts.parts_text import parts_text

PARTS = ("read", "decode", "resize", "graph", "answer")
ROW = {
    "name": "flowers",
    "batch": 8,
    "ms_per_image": dict(zip(PARTS, (0.1, 5.0, 2.0, 12.5, 0.05), strict=True)),
    "ms_per_image_all": 19.7,
    "share": dict(zip(PARTS, (0.005, 0.254, 0.102, 0.634, 0.003), strict=True)),
    "images_per_s": {"run": 95.0, "graph": 160.0, "read_decode_resize": 280.0, "bound": 101.8},
}


def test_shares_and_what_is_allowed_are_told():
    images = {"count": 64, "of": 2000, "broken": 2, "mean_bytes": 24_100}
    text = parts_text({"rows": [ROW, {**ROW, "name": "two\nlines"}], "images": images})
    assert "decoding 25 %, resizing 10 %, the graph 63 %, answer 0 %" in text
    assert "95.0 images/s, 0.93 of what files" in text
    assert "64 images of 2,000, 24 kB each, 2 broken ones left out" in text
    assert not any(line.startswith("lines") for line in text.splitlines())
