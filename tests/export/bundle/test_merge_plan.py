"""What is merged: as asked, as tuned, or for a share of the multiply-accumulates; and what is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.export.conftest import Pictures
from tests.support.adapter_files import answers, files_of
from tests.support.strategies import Setup, build
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.errors import GateError, TargetError, VptkitError
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.bundle.merge_plan import merging_of, parse_export_merge
from vptkit.export.numerics.evidence import Evidence
from vptkit.export.precision.lowering import Lowering
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.backbone_spec import RelativePositions
from vptkit.formats.bundle import open_bundle
from vptkit.tune.backbone.reference import adapter_logits

SETUP = Setup(image=(32, 32), registers=0)  # 16 patches, 3 blocks


@pytest.fixture(autouse=True, scope="module")
def same_models():
    """Timm draws its weights; what a gate sees shall be the same every time."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def case():
    return build(SETUP)


@pytest.fixture
def made(tmp_path):
    return files_of(tmp_path, SETUP)


def decided(case, **options):
    adapter = case.adapter
    if tuned := options.pop("tuned", None):
        adapter = replace(adapter, merging=TokenMerging(schedule=tuned, attention="plain"))
    return merging_of(ExportOptions(**options), adapter, case.spec)


@pytest.mark.parametrize(
    ("asked", "schedule"),
    [("3", (3, 3, 0)), (3, (3, 3, 0)), ("0,2,0", (0, 2, 0)), ([1, 2, 0], (1, 2, 0))],
)
def test_a_number_or_one_a_block(case, asked, schedule):
    assert decided(case, merge=asked) == TokenMerging(schedule=schedule)


def test_more_than_there_are_become_all_that_can(case):
    assert decided(case, merge=100).schedule == (8, 4, 0)


@pytest.mark.parametrize("nothing", [None, "0", 0, "0,0,0"])
def test_nothing_is_merged(case, nothing):
    assert decided(case, merge=nothing) is None


def test_as_tuned_unless_asked_otherwise(case):
    tuned = TokenMerging(schedule=(2, 1, 0), attention="plain")
    assert decided(case, tuned=(2, 1, 0)) == tuned
    assert decided(case, tuned=(2, 1, 0), merge=3) == replace(tuned, schedule=(3, 3, 0))
    other = decided(case, tuned=(2, 1, 0), merge_attention="proportional")
    assert other == replace(tuned, attention="proportional")
    assert decided(case, tuned=(2, 1, 0), merge="0") is None


def test_a_target_takes_the_fewest_that_reach_it(case):
    found = decided(case, merge="0.8x").schedule
    assert found[0] == found[1] > 1
    assert decided(case, merge=f"{0.99}x").schedule < found
    with pytest.raises(TargetError, match=r"--merge 0\.1x cannot be reached.*leaves 0\.\d+"):
        decided(case, merge="0.1x")


@pytest.mark.parametrize(
    "wrong", ["", "x", "1x", "0x", "1.5x", "-0.7x", "0.7 x", "abc", "-3", "3.5", "٣", "1e1x", True]
)
def test_what_is_no_schedule(wrong):
    with pytest.raises(VptkitError, match="merge is"):
        parse_export_merge(wrong)


def test_a_schedule_of_another_backbone(case):
    with pytest.raises(VptkitError, match="2 numbers, expected one for each of 3 blocks"):
        decided(case, merge="1,0")
    with pytest.raises(VptkitError, match="1 in the last block"):
        decided(case, merge="0,0,1")


@pytest.mark.parametrize("shared", [True, False])
def test_backbones_that_cannot_are_refused_by_name(case, shared):
    spec = replace(case.spec, relative=RelativePositions(kind="table", shared=shared))
    with pytest.raises(TargetError, match=r"relative positions.*Leave --merge away"):
        merging_of(ExportOptions(merge=2), case.adapter, spec)


def test_the_plain_graph_and_one_block(case):
    with pytest.raises(VptkitError, match="--fold none does not go with --merge"):
        decided(case, merge=2, fold="none")
    with pytest.raises(VptkitError, match=r"--fold none.*Pass --merge 0"):
        decided(case, tuned=(2, 1, 0), fold="none")
    assert decided(case, tuned=(2, 1, 0), fold="none", merge="0") is None
    with pytest.raises(VptkitError, match="--merge-attention has no effect"):
        decided(case, merge_attention="plain")
    short = build(replace(SETUP, depth=1))
    with pytest.raises(TargetError, match=r"nothing can be merged.*0 blocks"):
        decided(short, merge=3)


@pytest.mark.parametrize(
    ("field", "value"), [("merge_attention", "loud"), ("min_merge_agreement", 1.5)]
)
def test_options_of_another_kind(field, value):
    with pytest.raises(VptkitError, match="expected"):
        ExportOptions(**{field: value})


# bundles ------------------------------------------------------------------------------------------


def exported(files, run=None, **options):
    return export(
        files.adapter,
        files.out,
        weights=files.weights,
        options=ExportOptions(**options),
        force=True,
        runner=None if run is None else lambda _: run,
    )


def test_a_bundle_of_an_adapter_that_was_not_tuned_so(made, evidence):
    manifest = exported(made, evidence.run, merge="3")
    assert manifest["merging"] == {
        "schedule": [3, 3, 0],
        "attention": "proportional",
        "asked": "3",
        "tuned": False,
        "gate": None,
    }
    assert manifest["macs"]["graph"] < manifest["macs"]["unmerged"] < manifest["macs"]["unfolded"]
    bundle = open_bundle(made.out)
    carried = read_adapter(made.out / "adapter.safetensors")
    assert carried.merging.schedule == (3, 3, 0)
    images, logits = bundle.golden()
    assert np.array_equal(images, made.case.images)
    assert np.array_equal(logits, carried.golden()[1])
    assert largest_difference(logits, answers(made.out, made.case)) <= PARITY_FP32
    assert largest_difference(logits, made.case.reference) > 1e-3
    model, pixels = made.case.model, torch.from_numpy(made.case.pixels)
    with torch.no_grad():
        reference = adapter_logits(model, carried, pixels).numpy()
    assert largest_difference(logits, reference) <= PARITY_FP32


def test_without_a_runner_golden_answers_of_another_network_do_not_ship(made):
    exported(made, merge=3)
    assert open_bundle(made.out).golden() is None


def test_tuned_so(tmp_path, evidence):
    files = files_of(tmp_path, replace(SETUP, merge=3))
    manifest = exported(files, evidence.run)
    assert manifest["merging"]["tuned"]
    assert manifest["merging"]["asked"] is None
    assert (files.out / "adapter.safetensors").read_bytes() == files.adapter.read_bytes()
    assert largest_difference(answers(files.out, files.case), files.case.reference) <= PARITY_FP32
    manifest = exported(files, evidence.run, merge="0")
    assert "merging" not in manifest
    assert "unmerged" not in manifest["macs"]
    assert read_adapter(files.out / "adapter.safetensors").merging is None


def test_a_manifest_with_another_merging_is_refused(made):
    exported(made, merge=3)
    path = made.out / "manifest.json"
    document = json.loads(path.read_text())
    document["merging"]["attention"] = "loud"
    path.write_text(json.dumps(document))
    with pytest.raises(VptkitError, match="attention"):
        open_bundle(made.out)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_every_precision(made, evidence, precision):
    shape = (24, 32, 32, 3)
    images = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    judged = Evidence(
        run=evidence.run, calibration=Pictures(images[:16]), gate=Pictures(images[16:])
    )
    manifest = export(
        made.adapter,
        made.out,
        weights=made.weights,
        options=ExportOptions(
            merge="2",
            min_merge_agreement=0,
            lowering=Lowering(precision=precision, min_agreement=0.5),
        ),
        evidence=lambda _: judged,
    )
    assert manifest["gate"]["sqnr_db"] > 12
    assert manifest["merging"]["gate"]["count"] == 8


def test_the_gate_refuses_what_changes_too_much(tmp_path, evidence):
    made = files_of(tmp_path, replace(SETUP, insert="none", pool="avg"))
    images = np.random.default_rng(5).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    judged = Evidence(run=evidence.run, gate=Pictures(images))

    def attempt(**options):
        return export(
            made.adapter,
            made.out,
            weights=made.weights,
            options=ExportOptions(merge=100, **options),
            evidence=lambda _: judged,
            force=True,
        )

    with pytest.raises(GateError, match=r"label stays on .*at least 100\.0% wanted.*--merge"):
        attempt(min_merge_agreement=1.0)
    assert not (made.out / "manifest.json").exists()
    gate = attempt(min_merge_agreement=0.0)["merging"]["gate"]
    assert gate["agreement"] < 1
    tuned = replace(read_adapter(made.adapter), merging=TokenMerging(schedule=(8, 4, 0)))
    write_adapter(made.adapter, tuned)
    assert attempt()["merging"]["gate"]["min_agreement"] == 0  # told, not asked for
