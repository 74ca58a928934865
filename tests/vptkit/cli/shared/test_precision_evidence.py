"""Precisions on the command line: export, check, bisect, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.adapter_files import files_of
from tests.support.strategies import Setup
from vptkit.cli.shared.precision_evidence import lowering_of, note_missing_gate
from vptkit.errors import VptkitError
from vptkit.export.numerics.accuracy_gate import compare


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    found = files_of(folder, Setup())
    random = np.random.default_rng(0)
    for name in found.case.adapter.labels[:2]:
        (folder / "data" / name).mkdir(parents=True)
        for i in range(8):
            pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i}.png")
    return found


@pytest.fixture
def export(vptkit, files, tmp_path):
    def run(*options):
        out = tmp_path / "a.vptk"
        code, stdout, stderr = vptkit(
            "export", files.adapter, "--weights", files.weights, "-o", out, "--json", *options
        )
        return code, json.loads(stdout) if stdout else None, stderr, out

    return run


def data_of(files):
    return files.adapter.parents[1] / "data"


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_export_check_and_gate(export, vptkit, files, precision):
    calibration = ["--calibration", data_of(files), "--calibration-images", "8"]
    code, document, stderr, out = export(
        "--precision", precision, *calibration, "--min-agreement", "0.5"
    )
    assert code == 0, stderr
    assert document["precision"] == precision
    assert document["gate"]["count"] == 8  # what calibration left over, which it says
    assert (document["gate"]["split"], document["gate"]["too_kind"]) == (None, True)
    assert "may be training images" in document["gate"]["too_kind_because"]
    assert "warning: judged on images that may be training images" in stderr
    assert "too kind. Pass --gate" in stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["gate"] == document["gate"]
    assert manifest["lowering"]["calibration"] == document["calibration"]
    assert (document["calibration"]["split"], document["calibration"]["count"]) == (None, 8)
    assert document["lowering"]["target"] == ("cpu" if precision == "int8" else "tensorrt")
    assert document["parity"]["ok"]
    code, stdout, stderr = vptkit("check", out, "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["simulated"] == (precision in ("bf16", "fp8"))


def test_val_of_the_calibration_data_is_the_judge(export, files, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(data_of(files), tmp_path / "data" / split)
    for image in (tmp_path / "data" / "val").rglob("*.png"):
        image.write_bytes(image.read_bytes() + b"another")
    options = ("--precision", "int8", "--min-agreement", "0.3", "--calibration", tmp_path / "data")
    code, document, stderr, _ = export(*options)
    assert code == 0, stderr
    assert (document["calibration"]["split"], document["gate"]["split"]) == ("train", "val")
    assert (document["gate"]["too_kind"], document["gate"]["count"]) == (False, 16)
    assert "warning" not in stderr
    for phase in ("calibration: 160/160", "gate: 32/32"):
        assert phase in stderr
    options = (
        *options,
        "--calibration-images",
        8,
        "--gate",
        tmp_path / "data" / "train",
        "--force",
    )
    code, document, stderr, _ = export(*options)
    assert code == 0, stderr
    assert document["gate"]["too_kind_because"] == "judged on training images"


def test_without_images(export):
    code, document, stderr, _ = export("--precision", "fp16")
    assert (code, document["gate"]) == (0, None)
    assert "not compared with fp32 on real images" in stderr
    code, _, stderr, _ = export("--precision", "int8", "--force")
    assert code == 2
    assert "--calibration DIR" in stderr


def test_a_failed_gate_leaves_nothing(export, files, monkeypatch):
    monkeypatch.setattr(
        "vptkit.export.precision.lowering.compare",
        lambda *a, **k: replace(compare(*a, **k), ok=False),
    )
    code, _, stderr, out = export("--precision", "fp16", "--gate", data_of(files))
    assert code == 3
    assert not out.exists()
    assert "fp16 agrees with fp32 on" in stderr


def test_islands_are_named_or_refused(export):
    code, document, stderr, _ = export("--precision", "fp16", "--island", "blocks.1.mlp")
    assert code == 0
    assert document["lowering"]["islands"] == ["blocks.1.mlp"]
    assert "kept in fp32: blocks.1.mlp" in stderr
    code, _, stderr, _ = export("--precision", "fp16", "--island", "blocks.x")
    assert code == 2
    assert "expected patch, head" in stderr
    code, _, stderr, _ = export("--precision", "fp16", "--island", "blocks.77", "--force")
    assert code == 2
    assert "no such part" in stderr


def test_overflow_and_bisect(export, vptkit, files):
    code, _, stderr, out = export()
    assert code == 0, stderr
    code, stdout, stderr = vptkit("check", out, "--overflow", data_of(files), "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert len(found["blocks"]) == files.case.spec.depth
    assert found["images"] == 16
    assert found["headroom"] > 4
    code, stdout, _ = vptkit("check", out, "--overflow", data_of(files))
    assert "islands that fp16 needs: none" in stdout
    code, stdout, stderr = vptkit("bisect", out, data_of(files), "--json", "--min-agreement", "0.5")
    assert code == 0, stderr
    document = json.loads(stdout)
    assert (document["islands"], document["calibration"]) == ([], None)
    assert (document["gate"]["split"], document["gate"]["too_kind"]) == (None, False)
    options = ("--precision", "int8", "--calibration-images", 8, "--min-agreement", 0)
    code, stdout, stderr = vptkit("bisect", out, data_of(files), *options)
    assert code == 0, stderr
    assert "may be training images" in stderr
    lines = stdout.splitlines()
    assert lines[0] == "(none needed)"
    assert "Too kind" in lines[2]
    assert lines[-1].startswith("next: vptkit export ")
    images = data_of(files)
    assert lines[-1].endswith(
        "--precision int8 --calibration-images 8 --min-agreement 0.0 "
        f"--calibration {images} --gate {images}"
    )
    code, _, stderr = vptkit("bisect", out, data_of(files), "--calibration-images", 8)
    assert code == 2
    assert "--calibration-images has no effect here" in stderr


def test_bisect_of_merged_tokens_says_how_to_merge_them_again(export, vptkit, files):
    code, _, stderr, out = export("--merge", "1", "--merge-attention", "plain")
    assert code == 0, stderr
    code, stdout, stderr = vptkit("bisect", out, data_of(files), "--min-agreement", 0)
    assert code == 0, stderr
    assert "fp16 --merge 1 --merge-attention plain --min-agreement 0.0" in stdout.splitlines()[-1]


def test_maps_and_searches_want_fp32(export, vptkit, files):
    _, _, _, out = export("--precision", "fp16")
    for command in (["check", out, "--overflow", data_of(files)], ["bisect", out, data_of(files)]):
        code, _, stderr = vptkit(*command)
        assert code == 4
        assert "expected fp32" in stderr


WANTED = {"precision": "fp16", "target": "auto", "auto_islands": True}


def test_islands_are_parts_of_a_network():
    parts = ("patch", "head", "blocks", "blocks.11", "blocks.0.attn", "blocks.3.residual")
    assert lowering_of(**WANTED, islands=parts, min_agreement=1.0).islands == parts
    for wrong in ("block.0", "blocks.0.", "blocks.x", "blocks.0.attn.q", "head\n"):
        with pytest.raises(VptkitError, match=r"--island .*expected patch, head"):
            lowering_of(**WANTED, islands=(wrong,), min_agreement=None)
    with pytest.raises(VptkitError, match=r"--min-agreement 99: expected a share"):
        lowering_of(**WANTED, islands=(), min_agreement=99)


def test_a_gate_that_nobody_asked_for_is_noted(capsys):
    note_missing_gate({"precision": "fp32", "gate": None, "lowering": None})
    assert capsys.readouterr().err == ""
    plan = {"islands": ["head"], "placement": list("abcde")}
    note_missing_gate({"precision": "int8", "gate": None, "lowering": plan})
    first, *rest = capsys.readouterr().err.splitlines()
    assert "int8 was not compared with fp32 on real images; --gate DIR" in first
    assert rest == ["note: kept in fp32: head", "note: a", "note: b", "note: c"]
