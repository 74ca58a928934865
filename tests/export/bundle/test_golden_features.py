"""`export --output`: features are what the head reads, exactly, for every pool, norm and fold."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
import torch

from tests.support.adapter_files import files_of
from tests.support.exported_graphs import graph_of
from tests.support.strategies import Setup, build
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.cli.shared.precision_evidence import golden_parity, runner
from vptkit.errors import BundleError, GateError, TargetError, VptkitError
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.baselines import export_baselines
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.bundle.golden_features import golden_features
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import read_tensors, write_tensors
from vptkit.runtime.evaluation.parity import check_golden
from vptkit.runtime.session.factory import open_session
from vptkit.scores.feature_distance import unit_length
from vptkit.tune.backbone.reference import adapter_logits, reading_features

SETUPS = {
    "token": Setup(),
    "no final norm": Setup(final_norm=False),
    "token+avg": Setup(pool="token+avg"),
    "avg, norm after": Setup(pool="avg", norm="after_pool"),
    "avg_prompts, norm after": Setup(pool="avg_prompts", norm="after_pool"),
    "avg_prompts, shallow": Setup(pool="avg_prompts", insert="shallow"),
}


def features_of(case):
    """The reference's: float64 [B, f]."""
    model = copy.deepcopy(case.model)
    pixels = torch.from_numpy(case.pixels)
    with torch.no_grad():
        return adapter_logits(model, reading_features(case.adapter), pixels).numpy()


def compiled(files, **options):
    """The manifest of a bundle that carries golden features and was compared with them."""
    verified = {
        "verify": partial(golden_parity, threads=1),
        "runner": lambda adapter: runner(adapter.preprocess, 1),
    }
    return export(
        files.adapter,
        files.out,
        weights=files.weights,
        options=ExportOptions(**options),
        **verified,
    )


@pytest.mark.parametrize(
    ("setup", "fold", "normalize"),
    [
        *((name, "all", False) for name in SETUPS),
        ("token+avg", "none", False),
        ("avg_prompts, norm after", "none", False),
        ("token", "all", True),
        ("token+avg", "none", True),
    ],
)
@pytest.mark.slow
def test_features_are_the_references(tmp_path, setup, fold, normalize):
    files = files_of(tmp_path, SETUPS[setup])
    manifest = compiled(files, output="both", fold=fold, normalize_features=normalize)
    expected = features_of(files.case)
    expected = unit_length(expected) if normalize else expected
    with open_session(files.out, "cpu", 1) as session:
        answers = session.answers(files.case.images)
        assert largest_difference(answers["features"], expected) <= PARITY_FP32
        assert largest_difference(answers["logits"], files.case.reference) <= PARITY_FP32
        assert np.array_equal(session.features(files.case.images), answers["features"])
        assert np.array_equal(session.run(files.case.images), answers["logits"])
    assert [value["name"] for value in manifest["outputs"]] == ["logits", "features"]
    assert manifest["outputs"][1]["normalized"] is normalize
    assert manifest["parity"]["features"]["min_cosine"] > 0.999999
    assert largest_difference(open_bundle(files.out).golden_features(), expected) <= PARITY_FP32


@pytest.mark.slow
def test_features_alone(tmp_path):
    files = files_of(tmp_path, Setup())
    manifest = compiled(files, output="features")
    assert [value["name"] for value in manifest["outputs"]] == ["features"]
    model = onnx.load(files.out / "model.onnx")
    assert [value.name for value in model.graph.output] == ["features"]
    names = {tensor.name for tensor in model.graph.initializer}
    assert not {"logits.weight", "logits.bias"} & names  # what only logits need is gone
    with open_session(files.out, "cpu", 1) as session:
        found = session.features(files.case.images)
        assert largest_difference(found, features_of(files.case)) <= PARITY_FP32
        assert session.features(files.case.images[:0]).shape == (0, 32)
        with pytest.raises(BundleError, match=r"gives features, no logits.*--output both"):
            session.run(files.case.images)
        (one,) = session.predict(files.case.images[0])
        assert (one.top, one.label, one.logits, one.error) == ((), None, None, None)
        assert one.features.shape == (32,)
        assert check_golden(session).top1_agreement is None


def test_logits_alone_are_the_graph_that_they_were(files):
    """Features cost nothing where nobody asks for them; where somebody does, nearly nothing."""
    export(files.adapter, files.out, weights=files.weights)
    model = onnx.load(files.out / "model.onnx")
    assert [value.name for value in model.graph.output] == ["logits"]
    names = {tensor.name for tensor in model.graph.initializer}
    assert "norm.weight" not in names  # its affine is in the head
    nodes = [node.op_type for node in model.graph.node]
    both = [node.op_type for node in graph_of(files.case, features=True).graph.node]
    assert both == [*nodes, "Identity"]
    with (
        open_session(files.out, "cpu", 1) as session,
        pytest.raises(BundleError, match="gives logits, no features"),
    ):
        session.features(files.case.images)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 3])
def test_a_fixed_batch_and_float_pixels(tmp_path, batch):
    files = files_of(tmp_path, Setup())
    compiled(files, output="both", batch=batch, input="float32")
    with open_session(files.out, "cpu", 1) as session:
        found = session.features(files.case.images)
    assert largest_difference(found, features_of(files.case)) <= PARITY_FP32


@pytest.mark.slow
def test_golden_features_that_the_logits_contradict_are_refused(case):
    model = graph_of(case, features=True)
    for tensor in model.graph.initializer:
        if tensor.name == "norm.weight":
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[0] *= 1.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    golden = {"golden.images": case.images, "golden.logits": case.reference.astype(np.float32)}
    adapter = replace(case.adapter, tensors={**case.adapter.tensors, **golden})
    run = runner(adapter.preprocess, 1)(model)
    with pytest.raises(GateError, match="golden logits do not follow"):
        golden_features(adapter, run, normalized=False)
    assert golden_features(case.adapter, run, normalized=False) is None


@pytest.mark.slow
def test_a_board_that_computes_other_features_is_found(tmp_path):
    """Also where its logits are right: features of another direction, which no class reads."""
    files = files_of(tmp_path, Setup())
    compiled(files, output="both")
    golden = read_tensors(files.out / "golden.safetensors", BundleError)
    with open_session(files.out, "cpu", 1) as session:
        assert check_golden(session).ok
        golden["features"][0, 0] += 1
        write_tensors(files.out / "golden.safetensors", golden)
        bundle = replace(
            session.bundle,
            stamps={},
            manifest={**session.bundle.manifest, "files": _digests(files.out)},
        )
        parity = check_golden(replace(session, bundle=bundle))
    assert (parity.ok, parity.top1_agreement) == (False, 1.0)
    assert parity.features.max_abs_diff == pytest.approx(1, abs=1e-3)


def _digests(folder):
    from vptkit.atomic_files import sha256_of_file

    return {p.name: sha256_of_file(p) for p in folder.iterdir() if p.name != "manifest.json"}


@pytest.mark.slow
@pytest.mark.parametrize("output", ["features", "both"])
def test_half_precision_is_judged(tmp_path, evidence, output):
    files = files_of(tmp_path, Setup())
    options = ExportOptions(output=output, lowering=Lowering(precision="fp16"))
    manifest = export(
        files.adapter,
        files.out,
        weights=files.weights,
        options=options,
        evidence=lambda _: evidence,
        runner=lambda adapter: runner(adapter.preprocess, 1),
        verify=partial(golden_parity, threads=1),
    )
    gate, parity = manifest["gate"], manifest["parity"]
    assert gate["agreement"] == 1.0  # judged with its logits, also where they go
    assert 0.9999 < gate["features"]["cosine"] < 1
    assert 0 < parity["features"]["max_rel_diff"] < 2e-2
    types = {v.name: v.type.tensor_type.elem_type for v in _graph(files).output}
    assert types["features"] == onnx.TensorProto.FLOAT
    assert ("logits" in types) == (output == "both")


@pytest.mark.slow
def test_a_precision_that_turns_features_is_refused(tmp_path, evidence, monkeypatch):
    from vptkit.export.precision import lowering

    files = files_of(tmp_path, Setup())
    monkeypatch.setitem(lowering.MIN_COSINE, "fp16", 1.0)
    options = ExportOptions(output="features", lowering=Lowering(precision="fp16"))
    with pytest.raises(GateError, match=r"fp16 changes the features: cosine 1\.0"):
        export(
            files.adapter,
            files.out,
            weights=files.weights,
            options=options,
            evidence=lambda _: evidence,
        )


def _graph(files):
    return onnx.load(files.out / "model.onnx").graph


@pytest.mark.slow
def test_baselines_give_what_the_bundle_gives(tmp_path):
    files = files_of(tmp_path, Setup())
    compiled(files, output="features", normalize_features=True)
    (tmp_path / "baselines").mkdir()
    for path in export_baselines(files.out, tmp_path / "baselines").values():
        with open_session(path, "cpu", 1) as session:
            found = session.features(files.case.images)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_bank_gives_none_alone(tmp_path):
    files = files_of(tmp_path, Setup())
    options = ExportOptions(output="features")
    with pytest.raises(TargetError, match=r"--output features does not go .* Pass --output both"):
        export_bank([files.adapter], files.out, weights=files.weights, options=options)


def test_options_without_sense():
    with pytest.raises(VptkitError, match="output is 'embedding', expected one of logits"):
        ExportOptions(output="embedding")
    with pytest.raises(VptkitError, match="--normalize-features has no effect here"):
        ExportOptions(normalize_features=True)


@pytest.mark.slow
def test_no_golden_features_without_a_runner(tmp_path):
    files = files_of(tmp_path, Setup())
    options = ExportOptions(output="features")
    export(files.adapter, files.out, weights=files.weights, options=options)
    assert open_bundle(files.out).golden_features() is None
    with (
        open_session(files.out, "cpu", 1) as session,
        pytest.raises(BundleError, match="carries no golden features"),
    ):
        check_golden(session)
    assert golden_parity(files.out, 1) is None


def test_the_case_is_not_changed_by_reading_its_features():
    case = build(Setup())
    before = case.adapter.tensors["head.weight"].copy()
    read = reading_features(case.adapter)
    assert len(read.labels) == 32
    assert np.array_equal(case.adapter.tensors["head.weight"], before)
