"""The table that ships is what timm says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vptkit.backbones.backbone_table import (
    FIRST_CHOICES,
    MEASURED,
    all_backbones,
    backbones_of,
)

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "vptkit" / "assets" / "backbones.json"


def test_every_name_of_the_coverage_page_that_exports_is_in_it():
    page = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| \S+e-\d+ \|", page, re.MULTILINE)
    assert {one.name for one in all_backbones()} == set(rows)


def test_first_choices_have_weights_and_a_free_licence():
    known = {one.name: one for one in all_backbones()}
    assert {known[name].licence for name in FIRST_CHOICES.values()} == {"apache-2.0"}


def test_what_is_called_measured_stands_in_the_benchmarks():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert MEASURED == {"vit_base_patch16_224": 262}
    assert "| bare backbone, vptkit --fold none | 261.8 |" in page


def test_weights_of_a_geometry():
    found = backbones_of(width=384, depth=12, patch=(14, 14), rows=1370, tensors=174)
    assert found[0] == "vit_small_patch14_dinov2"
    found = backbones_of(width=192, depth=12, patch=(16, 16), rows=197, tensors=150)
    assert found[0] == "vit_tiny_patch16_224"
    assert backbones_of(width=1, depth=1, patch=(1, 1), rows=None, tensors=1) == []


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "deit_tiny_patch16_224"]
)
def test_a_row_is_what_timm_says(name):
    timm = pytest.importorskip("timm")
    import json

    from tests.integration.backbone_rows import row_of

    document = json.loads(TABLE.read_text(encoding="ascii"))
    if document["timm"] != timm.__version__:
        pytest.skip("vptkit/assets/backbones.json was written with another timm")
    assert row_of(name) == next(row for row in document["backbones"] if row["name"] == name)
