"""`vptkit.export(...)` does what the command does: timm is asked, the bundle is verified."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.support.adapter_files import content, files_of
from tests.support.bank_cases import family, write_family
from tests.support.strategies import Setup
from vptkit.api.compiling import described, export, export_bank
from vptkit.cli.shared.judging_images import Asked
from vptkit.errors import GateError, MissingExtraError, VptkitError
from vptkit.export import ExportOptions
from vptkit.export.bank import edit_bank
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import read_tensors, write_tensors


@pytest.fixture
def files(tmp_path):
    return files_of(tmp_path, Setup())


def test_text_for_paths_and_the_golden_answers_compared(files):
    manifest = export(str(files.adapter), str(files.out), weights=str(files.weights))
    assert manifest["parity"]["ok"] is True
    assert open_bundle(files.out).manifest["parity"] == manifest["parity"]


def test_a_bundle_that_answers_otherwise_is_not_left_behind(files, monkeypatch):
    monkeypatch.setattr("vptkit.runtime.evaluation.parity.default_tolerance", lambda _: 0.0)
    with pytest.raises(GateError, match="differs from the golden answers"):
        export(files.adapter, files.out, weights=files.weights)
    assert not files.out.exists()
    assert export(files.adapter, files.out, weights=files.weights, verify=False)["parity"] is None


def test_a_function_of_ones_own_verifies(files):
    seen = []
    manifest = export(
        files.adapter, files.out, weights=files.weights, verify=lambda f: seen.append(f) or {"a": 1}
    )
    assert manifest["parity"] == {"a": 1}
    assert len(seen) == 1


def test_weights_in_another_form_go_by_timm(files, monkeypatch):
    """The same bytes as from the file alone."""
    tensors = read_tensors(files.weights, VptkitError)
    other = files.weights.with_name("other.safetensors")
    grid = tensors["pos_embed"]  # of more patches: timm resizes it
    write_tensors(other, {**tensors, "pos_embed": np.concatenate([grid, grid[:, 1:]], axis=1)})
    asked = []

    def by_timm(adapter, weights):
        asked.append(weights)
        return files.case.spec, tensors

    monkeypatch.setattr("vptkit.api.compiling.described", by_timm)
    export(files.adapter, files.out, weights=str(other), verify=False)
    assert asked == [str(other)]
    first = content(files.out)
    export(files.adapter, files.out, weights=files.weights, verify=False, force=True)
    assert content(files.out) == first


def test_weights_in_another_form_need_timm_and_say_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"not in the form of the adapter's.*\[tune\]"):
        described(None, None)


def test_without_onnx_the_extra_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (export, export_bank):
        with pytest.raises(MissingExtraError, match=r"export needs the package onnx.*\[export\]"):
            call(files.adapter, files.out)


@pytest.mark.slow
def test_a_precision_by_name(files):
    manifest = export(files.adapter, files.out, weights=files.weights, precision="fp16")
    assert manifest["precision"] == "fp16"
    assert manifest["gate"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"precision": "int4"}, "precision is 'int4', expected one of fp32, fp16"),
        ({"precision": "fp16", "options": ExportOptions()}, "precision 'fp16' and options"),
    ],
)
def test_other_precisions_are_refused(files, arguments, said):
    with pytest.raises(VptkitError, match=said):
        export(files.adapter, files.out, weights=files.weights, **arguments)
    assert not files.out.exists()


def test_images_for_a_lower_precision_are_passed_on_as_by_the_command(files, monkeypatch):
    found = []

    def evidence_of(asked, run, phase):
        found.append((asked, run.keywords))
        raise RuntimeError("enough")

    monkeypatch.setattr("vptkit.cli.shared.judging_images.evidence_of", evidence_of)
    with pytest.raises(RuntimeError, match="enough"):
        export(
            files.adapter, files.out, precision="int8", calibration="a", gate="b", threads=1,
            calibration_images=5, columns="image=x,label=y", skip_broken=True,
        )  # fmt: skip
    reading = {"columns": "image=x,label=y", "skip_broken": True}
    assert found == [(Asked(Path("a"), Path("b"), most=5, **reading), {"threads": 1})]


@pytest.mark.slow
def test_a_bank_of_text_paths_is_verified(tmp_path):
    paths = write_family(family(), tmp_path)
    adapters = [str(paths[name]) for name in ("bilinear", "linear")]
    out = str(tmp_path / "all.vptk")
    manifest = export_bank(adapters, out, weights=str(paths["weights"]))
    assert manifest["name"] == "all"
    assert manifest["parity"]["ok"] is True
    assert edit_bank.add(out, str(paths["bilinear"]), name="new") == "new"
    edit_bank.remove(out, "linear")
    assert open_bundle(tmp_path / "all.vptk").adapter_names == ("bilinear", "new")
    with pytest.raises(VptkitError, match="expected a list of adapter files"):
        export_bank(adapters[0], out)
