"""Every isotropic ViT of timm: exported like the reference, or refused by feature."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import timm

from tests.integration import coverage
from tests.support.tolerances import CLEARLY, PARITY_REAL_WEIGHTS
from vptkit.errors import BackboneError
from vptkit.tune.backbone.spec_from_timm import spec_from_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"


@pytest.mark.long
def test_every_name_is_exact_or_refused_as_the_document_says():
    """One walk: figures differ from machine to machine, names and refusals do not."""
    rows = [coverage.cover(module, name) for module, name in coverage.names()]
    wrong = {row.name: row.differences for row in rows if row.refused is None}
    wrong = {k: v for k, v in wrong.items() if max(v.values()) > PARITY_REAL_WEIGHTS}
    assert wrong == {}
    assert sum(row.refused is None for row in rows) >= 220
    for row in rows:
        assert row.refused is None or "Diff" in row.refused, row

    document = DOCUMENT.read_text(encoding="utf-8")
    if f"timm {timm.__version__}:" not in document:
        pytest.skip("all exact; docs/coverage.md was written with another timm")
    assert _names(document) == _names(coverage.table(rows))


def _names(text):
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return [(line[1].strip(), "refused" in line[2]) for line in lines]


@pytest.mark.parametrize(
    ("name", "forget"),
    [
        ("eva02_base_patch14_224", "rotary"),
        ("vit_base_patch16_rope_mixed_224", "rotary"),
        ("beit_base_patch16_224", "relative"),
        ("vit_relpos_small_patch16_224", "relative"),
        ("vit_base_patch16_siglip_224", "attention_pool"),
        ("eva02_base_patch16_clip_224", "attention_norm"),
        ("vit_base_patch16_rpn_224", "block"),
        ("aimv2_large_patch14_224", "norm"),
    ],
)
def test_a_forgotten_feature_is_seen(name, forget):
    """The broken twin: the walk's own models and tolerance, one field at its default."""
    from dataclasses import replace

    model = coverage.small_model(name)
    spec = spec_from_model(model, name)
    changes = {
        "rotary": {"rotary": None},
        "relative": {"relative": None},
        "attention_pool": {"attention_pool": None, "pool": "avg"},
        "attention_norm": {"attention_norm": False},
        "block": {"block": "pre"},
        "norm": {"norm": "layer"},
    }[forget]
    adapter = coverage.adapter_for(name, model, spec, "deep")
    broken = replace(spec, **changes)
    if forget == "attention_pool":
        adapter = replace(adapter, pool="map")
        right = coverage.logits(model, spec, adapter)
        wrong = coverage.graph_logits(model, broken, replace(adapter, pool="avg"))
    else:
        right = coverage.logits(model, spec, adapter)
        wrong = coverage.graph_logits(model, broken, adapter)
    assert coverage.largest_difference(wrong, right) > CLEARLY * PARITY_REAL_WEIGHTS


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "pvt_v2_b0", "resnet18"])
def test_other_architectures_are_refused(name):
    model = timm.create_model(name, pretrained=False, num_classes=0)
    with pytest.raises(BackboneError, match=type(model).__name__) as caught:
        spec_from_model(model, name)
    if name.startswith("swin"):
        assert "windows" in str(caught.value)
