"""Adapters that do not fit into a bank are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.bank_cases import family
from tests.support.exported_banks import assert_bank_refused
from vptkit.errors import AdapterError, BackboneError


def another_backbone(adapter):
    return replace(adapter, backbone=replace(adapter.backbone, sha256="0" * 64))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (another_backbone, BackboneError, "another backbone than the one that was tuned"),
        (lambda a: replace(a, pool="avg"), AdapterError, "pool 'avg', norm 'before_pool'"),
        (lambda a: replace(a, norm="after_pool"), AdapterError, "norm 'after_pool'"),
        (lambda a: replace(a, name="bilinear"), AdapterError, "two adapters have the name"),
        (
            lambda a: replace(a, preprocess=replace(a.preprocess, std=(0.1, 0.2, 0.3))),
            AdapterError,
            "preprocessing .* are built into the graph",
        ),
    ],
)
def test_adapters_that_do_not_fit_are_refused(tmp_path, change, error, match):
    assert_bank_refused(tmp_path, family(kinds=("bilinear", "linear")), change, error, match)


def test_shallow_prompts_are_refused(tmp_path):
    members = family(kinds=("bilinear", "whitened"))
    shallow = lambda a: replace(  # noqa: E731
        a,
        insert="shallow",
        tensors={k: v for k, v in a.tensors.items() if k not in ("prompt.1", "prompt.2")},
    )
    assert_bank_refused(tmp_path, members, shallow, AdapterError, "its prompts are shallow")
