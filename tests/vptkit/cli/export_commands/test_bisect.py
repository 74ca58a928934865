"""`vptkit bisect`: what it refuses before it looks at an image."""

from __future__ import annotations

import sys

import pytest

from vptkit.cli.export_commands.bisect import bisect
from vptkit.errors import MissingExtraError, TargetError, VptkitError


def test_only_fp32_says_what_the_values_are(make_bundle, tmp_path):
    with pytest.raises(TargetError, match="the bundle is int8; expected fp32"):
        bisect(make_bundle(precision="int8"), tmp_path)


def test_a_precision_that_is_none(make_bundle, tmp_path):
    with pytest.raises(VptkitError, match="--precision 'fp32': expected fp16, bf16, int8 or fp8"):
        bisect(make_bundle(), tmp_path, precision="fp32")


def test_the_data_options_reach_the_reader(make_bundle, tmp_path, monkeypatch):
    """What is read is tested where it is read (`judging_images`)."""

    def look(asked, _tuned):
        raise VptkitError(f"{asked.columns} {asked.skip_broken} {asked.allow_outside} {asked.gate}")

    monkeypatch.setattr("vptkit.cli.shared.judging_images.judging_images", look)
    with pytest.raises(VptkitError, match=f"image=a,label=b True False {tmp_path}"):
        bisect(make_bundle(), tmp_path, columns="image=a,label=b", skip_broken=True)


def test_without_onnx(make_bundle, tmp_path, monkeypatch):
    bundle = make_bundle()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"bisect.*vptkit\[export\]"):
        bisect(bundle, tmp_path)
