"""`vptkit check --oracle` on bundles of a 12-block ViT, and what it promises of them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.adapter_files import files_of
from tests.support.command_errors import assert_error
from tests.support.small_vit import SMALL_VIT
from tests.support.stand_in_modules import fake_room, hide
from vptkit.atomic_files import sha256_of_file
from vptkit.cli.runtime_commands.check import report_overflow
from vptkit.errors import TargetError
from vptkit.export.analysis.tensorrt_rules import VERSIONS
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.bundle import open_bundle

if TYPE_CHECKING:
    from pathlib import Path

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is missing"
)
DEPTH = 12
SETUP = replace(SMALL_VIT, depth=DEPTH)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return files_of(tmp_path_factory.mktemp("deep"), SETUP, golden=False)


@pytest.fixture
def export(vptkit, files, tmp_path):
    """A function that exports the deep adapter, or the bare backbone as others export it."""

    def run(*options: object, bare: bool = False, name: str = "out") -> Path:
        adapter, out = files.adapter, tmp_path / f"{name}.vptk"
        if bare:
            adapter = tmp_path / "bare.safetensors"
            write_adapter(adapter, read_adapter(files.adapter).without_prompts())
            options = (*options, "--fold", "none")
        code, _, err = vptkit(
            "export", adapter, "-o", out, "--weights", files.weights, "--batch", 1, *options
        )
        assert code == 0, err
        return out

    return run


def oracle(vptkit, bundle, *options):
    code, out, err = vptkit("check", bundle, "--oracle", "trt-rtx", "--json", *options)
    return code, json.loads(out), err


@rtx
@pytest.mark.slow
def test_every_attention_of_a_deep_bundle_is_fused(vptkit, export):
    code, deep, err = oracle(vptkit, export("--precision", "fp16"), "--sm", "86")
    assert code == 0, err
    found = deep["rows"][0]["structure"]
    assert found["fused_attentions"] == DEPTH
    assert found["unfused_softmax"] == []
    assert set(found["gemms"]) == {"Half"}


@rtx
@pytest.mark.slow
def test_a_deep_bundle_costs_no_layer(vptkit, export):
    counts = []
    for bare in (False, True):
        bundle = export("--precision", "fp16", bare=bare, name=f"bare-{bare}")
        code, document, err = oracle(vptkit, bundle, "--sm", "86")
        assert code == 0, err
        counts.append(document["rows"][0]["structure"]["layers"])
    assert counts[0] <= counts[1]


@rtx
def test_the_absorbed_last_block_is_found_out(vptkit, export):
    bundle = export("--precision", "fp16", "--last-block", "absorbed")
    code, document, err = oracle(vptkit, bundle, "--sm", "86")
    assert code == 3
    assert not document["ok"]
    assert document["rows"][0]["structure"]["unfused_softmax"] == ["blocks.11.attn/softmax"]
    assert "--last-block query" in err


@rtx
@pytest.mark.slow
def test_no_gemm_of_an_int8_bundle_is_dequantized(vptkit, export, tmp_path):
    random = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for i in range(8):
        pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    bundle = export(
        *("--precision", "int8", "--target", "tensorrt", "--calibration", images),
        *("--min-agreement", 0),
    )
    code, document, err = oracle(vptkit, bundle, "--sm", "86")
    assert code == 0, err
    found = document["rows"][0]["structure"]
    assert found["dequantized_gemms"] == []
    assert found["gemms"]["Int8"] >= 3 * DEPTH
    assert found["fused_attentions"] == DEPTH


@rtx
def test_a_float32_bundle_is_reported_and_passes(vptkit, export):
    code, out, _ = vptkit("check", export(), "--oracle", "trt-rtx", "--sm", "86", "--layers")
    assert code == 0
    assert out.splitlines()[0].split()[:3] == ["sm", "result", "layers"]
    assert "blocks.11.mlp.fc2" in out


@rtx
def test_a_target_without_an_engine_is_exit_4(vptkit, export):
    code, document, err = oracle(vptkit, export(), "--sm", "87")
    assert (code, document["ok"]) == (4, False)
    assert "SM87" in err


def test_missing_wheels_are_exit_5(vptkit, make_bundle, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = vptkit("check", make_bundle(), "--oracle", "trt-rtx")
    assert (code, out) == (5, "")
    assert "vptkit[trt-rtx]" in err


def test_rules(vptkit, make_bundle):
    code, out, _ = vptkit("check", make_bundle(), "--oracle", "rules", "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (0, True)
    assert tuple(row["trt"] for row in document["rows"]) == VERSIONS


def test_rules_for_a_version_that_does_not_take_it(vptkit, make_bundle):
    import onnx

    from vptkit.formats.bundle import MODEL, write_manifest

    bundle = make_bundle()
    model = onnx.load(bundle / MODEL)
    model.graph.node[0].op_type = "MatMulInteger"
    onnx.save(model, bundle / MODEL)
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {k: v for k, v in manifest.items() if k not in ("format", "files")})
    code, out, err = vptkit("check", bundle, "--oracle", "rules", "--trt", "8.6,10.3")
    assert code == 4
    assert "operator MatMulInteger: not in TensorRT 8.6" in err
    assert "refused" in out


@pytest.mark.parametrize(
    "options",
    [
        ("--oracle", "trt"),
        ("--oracle", "rules", "--sm", "86"),
        ("--oracle", "trt-rtx", "--trt", "8.6"),
        ("--oracle", "trt-rtx", "--sm", "Ada"),
        ("--oracle", "rules", "--trt", "9"),
    ],
)
def test_options_that_do_not_go_are_exit_2(vptkit, make_bundle, options):
    code, out, _ = vptkit("check", make_bundle(), *options)
    assert (code, out) == (2, "")


# against the golden answers, and the reference ---------------------------------------------------


def test_check(vptkit, make_bundle):
    bundle = make_bundle()
    code, out, err = vptkit("check", bundle, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "backend cpu: there is no GPU to use\n")
    assert document["ok"] is True
    assert document["bundle"] == str(bundle)
    assert document["backend"] == "cpu"
    assert {"max_abs_diff", "max_rel_diff", "top1_agreement", "count"} <= set(document)
    ok = r"OK: \d golden images, largest difference (none|\de-\d\d) \(allowed 1e-04\), same top-1"
    assert re.fullmatch(ok, vptkit("check", bundle)[1].strip())
    verdict, _, every = vptkit("check", bundle, "--verbose")[1].partition("\n\n")
    assert re.fullmatch(ok, verdict)
    assert "max_rel_diff" in every


def test_check_of_a_broken_twin_is_3_and_still_prints(vptkit, make_bundle):
    result = vptkit("check", make_bundle(shift=0.01), "--json")
    assert json.loads(result[1])["ok"] is False
    assert_error(result, 3, "differs from the golden answers")
    assert vptkit("check", make_bundle(shift=0.01), "--tolerance", "0.5")[0] == 0
    assert vptkit("check", make_bundle(shift=0.01))[:2] == (3, "")  # the sentence is the error's


@pytest.mark.parametrize(
    ("backend", "code", "part"), [("tensorrt", 5, "tensorrt"), ("cuba", 2, "cpu, cuda, tensorrt")]
)
def test_other_backends(vptkit, make_bundle, backend, code, part):
    result = vptkit("check", make_bundle(), "--backend", backend, "--json")
    assert_error(result, code, part)
    assert result[1] == ""


def test_check_of_what_is_no_bundle(vptkit, tmp_path, make_bundle):
    assert_error(vptkit("check", tmp_path), 2, "not a bundle")
    bundle = make_bundle()
    (bundle / "model.onnx").write_bytes(b"changed")
    assert_error(vptkit("check", bundle), 2, "model.onnx", "digest")


def test_check_against_the_reference(
    vptkit, make_bundle, edit_manifest, tiny_adapter, tiny_model, monkeypatch, tmp_path
):
    asked = []

    def reference_answers(adapter, weights, images, outputs):
        asked.append((adapter.to_json(), weights, images))
        known = {"logits": tiny_model.logits, "features": tiny_model.features}
        return {name: known[name](images) for name in outputs}

    def with_adapter(**options):
        path = make_bundle(**options)
        (path / "adapter.safetensors").write_bytes(tiny_adapter.read_bytes())
        files = json.loads((path / "manifest.json").read_text())["files"]
        digest = sha256_of_file(path / "adapter.safetensors")
        edit_manifest(path, files=files | {"adapter.safetensors": digest})
        return path

    room = "vptkit.tune.backbone.reference"
    fake_room(monkeypatch, room, reference_answers=reference_answers)
    bundle = with_adapter()
    code, out, _ = vptkit("check", bundle, "--reference", "--weights", tmp_path / "w", "--json")
    assert (code, json.loads(out)["against"]) == (0, "reference")
    assert asked[0][:2] == (read_adapter(tiny_adapter).to_json(), tmp_path / "w")
    np.testing.assert_array_equal(asked[0][2], open_bundle(bundle).golden()[0])
    # Without golden images: noise.
    assert vptkit("check", with_adapter(golden=False), "--reference")[0] == 0
    assert asked[1][1] is None
    assert asked[1][2].shape == (8, 24, 16, 3)
    # And it can fail.
    assert vptkit("check", with_adapter(shift=0.01), "--reference")[0] == 3
    # Logits and features come from one backbone.
    before = len(asked)
    assert vptkit("check", with_adapter(gives=("logits", "features")), "--reference")[0] == 0
    assert len(asked) == before + 1


def test_weights_without_reference_is_a_usage_error(vptkit, make_bundle):
    code, _, err = vptkit("check", make_bundle(), "--weights", "w")
    assert code == 2
    assert "--reference" in err


def test_a_missing_package_is_5_and_names_the_extra(vptkit, make_bundle, monkeypatch):
    monkeypatch.delitem(sys.modules, "vptkit.tune.backbone.reference", raising=False)
    hide(monkeypatch, "torch")
    result = vptkit("check", make_bundle(), "--reference")
    assert_error(result, 5, "--reference needs the package torch", 'pip install "vptkit[tune]"')


def test_columns_and_broken_images_are_of_overflow(vptkit, make_bundle, colour_folders):
    """Without --overflow no image is read, and the options would do nothing."""
    for option in (["--skip-broken"], ["--columns", "image=a,label=b"]):
        code, _, err = vptkit("check", make_bundle(), *option)
        assert (code, "goes with --overflow only" in err) == (2, True)


def test_overflow_is_of_fp32_bundles(make_bundle, colour_folders):
    """A lower precision has already cut off what would overflow."""
    bundle = make_bundle(precision="fp16")
    with pytest.raises(TargetError, match="the bundle is fp16; expected fp32"):
        report_overflow(bundle, colour_folders, None, True)


def test_a_simulation_writes_only_into_its_own_folder(
    vptkit, make_bundle, edit_manifest, tmp_path, monkeypatch
):
    """A name of the manifest, through a link and "..", had any file of the user overwritten."""
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    victim = tmp_path / "t" / ".bashrc"
    victim.write_text("mine")
    path = make_bundle(precision="bf16")
    (path / "a" / "b").mkdir(parents=True)
    (path / "d").symlink_to("a/b")  # d/../../.bashrc is the bundle's own file here
    (path / ".bashrc").write_text("evil")
    files = json.loads((path / "manifest.json").read_text())["files"]
    edit_manifest(path, files=files | {"d/../../.bashrc": sha256_of_file(path / "d/../../.bashrc")})
    assert_error(vptkit("check", path), 2, "a name in files is", "plain name")
    assert victim.read_text() == "mine"
    assert list((tmp_path / "t").iterdir()) == [victim]


def test_several_labels_an_image(vptkit, make_bundle):
    code, out, _ = vptkit("check", make_bundle(thresholds=(0.2, 0.5, 0.8)))
    assert code == 0
    assert re.search(r"scores to \de-0\d, same labels", out)
