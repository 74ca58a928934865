"""What a manifest says of a graph: tensors, operations, folds."""

from __future__ import annotations

import pytest

from tests.support.adapter_files import answers, files_of
from tests.support.exported_graphs import graph_of
from tests.support.strategies import Setup, build
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.export.analysis.macs import folded_macs, unfolded_macs
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.export.bundle.manifest import manifest_of
from vptkit.export.precision.lowering import Lowered


@pytest.mark.parametrize("feed", ["uint8", "float32"])
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("fold", ["all", "none"])
def test_options_reach_graph_and_manifest(tmp_path, feed, batch, fold):
    files = files_of(tmp_path, Setup())
    options = ExportOptions(input=feed, batch=batch, fold=fold, last_block="query")
    manifest = export(files.adapter, files.out, weights=files.weights, options=options)
    spec, size = files.case.spec, batch or "dynamic"
    shape = [size, 16, 24, 3] if feed == "uint8" else [size, 3, 16, 24]
    name = "images" if feed == "uint8" else "pixels"
    assert manifest["inputs"] == [{"name": name, "dtype": feed, "shape": shape}]
    assert manifest["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [size, 5]}]
    assert (manifest["batch"], manifest["fold"], manifest["layout"]) == (size, fold, "baked")
    unfolded, folded = unfolded_macs(spec, 3), folded_macs(spec, 3, "deep", "token", "query")
    assert manifest["macs"] == {
        "backbone": unfolded_macs(spec, 0),
        "unfolded": unfolded,
        "graph": folded if fold == "all" else unfolded,
    }
    assert ("deep prompts → constant key/value prefixes" in manifest["folds"]) == (fold == "all")
    pixels = "pixel scale, mean and std → patch embedding" in manifest["folds"]
    assert pixels == (fold == "all" and feed == "uint8")
    assert largest_difference(answers(files.out, files.case), files.case.reference) <= PARITY_FP32


@pytest.mark.parametrize(
    ("setup", "present", "absent"),
    [
        (Setup(), "last block: one query (absorbed)", "sum of prompts kept apart in the mean"),
        (Setup(), "LayerScale → projection and MLP", "shallow prompts → constant queries"),
        (Setup(rank=None, layer_scale=False), "key bias dropped", "LayerScale"),
        (Setup(insert="shallow"), "shallow prompts → constant queries", "deep prompts"),
        (
            Setup(pool="avg_prompts", norm="after_pool"),
            "sum of prompts kept apart in the mean",
            "last block",
        ),
        (Setup(qkv_bias=False, insert="none"), "final norm affine → head", "value bias"),
        (Setup(final_norm=False, tuned_norms=False, rank=None), "value bias", "final norm"),
        (Setup(rank=None), "attention scale → query", "prompt factors"),
    ],
)
def test_the_manifest_names_the_folds_that_were_applied(tmp_path, setup, present, absent):
    files = files_of(tmp_path, setup)
    folds = export(files.adapter, files.out, weights=files.weights)["folds"]
    assert any(name.startswith(present) for name in folds)
    assert not any(name.startswith(absent) for name in folds)


def test_a_manifest_of_a_graph_that_is_not_folded():
    """Nothing is claimed of it: no fold, and the operations of the unfolded graph."""
    case = build(Setup())
    lowered = Lowered(model=graph_of(case))
    folded = manifest_of(case.adapter, case.spec, ExportOptions(), lowered)
    plain = manifest_of(case.adapter, case.spec, ExportOptions(fold="none"), lowered)
    assert folded["folds"]
    assert plain["folds"] == []
    assert plain["macs"]["graph"] == plain["macs"]["unfolded"] > folded["macs"]["graph"]
    differ = {key for key in plain if plain[key] != folded[key]}
    assert differ == {"fold", "folds", "macs"}
    assert plain["parity"] is None  # filled in by who compares
