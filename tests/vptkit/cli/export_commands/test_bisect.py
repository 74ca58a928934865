"""`vptkit bisect`: what it refuses before it looks at an image."""

from __future__ import annotations

import sys

from tests.support.tuned_inputs import assert_only_error
from vptkit.errors import MissingExtraError, TargetError, VptkitError


def test_only_fp32_says_what_the_values_are(vptkit, make_bundle, tmp_path):
    found = vptkit("bisect", make_bundle(precision="int8"), tmp_path)
    assert_only_error(found, TargetError.exit_code, "the bundle is int8; expected fp32")


def test_a_precision_that_is_none(vptkit, make_bundle, tmp_path):
    found = vptkit("bisect", make_bundle(), tmp_path, "--precision", "fp32")
    assert_only_error(found, 2, "--precision 'fp32': expected fp16 or bf16 or int8 or fp8")


def test_the_data_options_reach_the_reader(vptkit, make_bundle, tmp_path, monkeypatch):
    """What is read is tested where it is read (`judging_images`)."""

    def look(asked, _tuned):
        raise VptkitError(f"{asked.columns} {asked.skip_broken} {asked.allow_outside} {asked.gate}")

    monkeypatch.setattr("vptkit.cli.shared.judging_images.judging_images", look)
    found = vptkit(
        "bisect", make_bundle(), tmp_path, "--columns", "image=a,label=b", "--skip-broken"
    )
    assert_only_error(found, 2, f"image=a,label=b True False {tmp_path}")


def test_without_onnx(vptkit, make_bundle, tmp_path, monkeypatch):
    bundle = make_bundle()
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = vptkit("bisect", bundle, tmp_path)
    assert_only_error(found, MissingExtraError.exit_code, "bisect", "vptkit[export]")
