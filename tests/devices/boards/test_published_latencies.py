"""Published latencies: every one has its source, its board and its precision."""

from __future__ import annotations

import pytest

from vptkit.devices.boards.catalog import boards
from vptkit.devices.boards.datasheet import FOLDER
from vptkit.devices.boards.published_latencies import Geometry, published_runs
from vptkit.errors import VptkitError


def test_runs_are_of_boards_that_there_are():
    runs = published_runs()
    assert len(runs) > 50
    for run in runs:
        place = boards()[run.board]
        assert run.precision in place.precisions
        assert run.mode is None or run.mode in {mode.name for mode in place.modes}
        assert run.source


def test_multiply_accumulates_by_hand():
    """ViT-B/16 at 224: 17.4 G in its blocks, 86 M numbers."""
    base = next(run.geometry for run in published_runs() if run.model == "vit-b16-224")
    assert base == Geometry(width=768, depth=12, mlp=3072, tokens=197, patch=16)
    assert base.macs == 12 * (197 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 197**2 * 768)
    assert base.macs / 1e9 == pytest.approx(17.4, abs=0.1)
    assert base.weights / 1e6 == pytest.approx(85.5, abs=0.5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('source = "faster-transformer-vit"', 'source = "hearsay"', "hearsay"),
        ('precision = "int8"', 'precision = "int4"', "int4"),
        ("runs.vit-b16-384", "runs.vit-huge", "vit-huge: is none of the models"),
        ("[[1, 8.53]", "[[1, -8.53]", r"expected a list of \[number, number\]"),
        ("[[1, 8.53]", "[[1]", r"expected a list of \[number, number\]"),
        ("tokens = 577", "tokens = 1", "tokens"),
        ('mode = "15W"', "colour = 1", "colour"),
    ],
)
def test_the_schema_is_strict(tmp_path, old, new, words):
    text = (FOLDER / "latencies.toml").read_text()
    assert old in text
    (tmp_path / "latencies.toml").write_text(text.replace(old, new, 1))
    (tmp_path / "sources.toml").write_text((FOLDER / "sources.toml").read_text())
    with pytest.raises(VptkitError, match=words) as caught:
        published_runs(tmp_path)
    assert "latencies.toml" in str(caught.value)
