"""Banks whose graph merges tokens: which ones, each image's own adapter decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.bank_cases import family, write_family
from tests.support.exported_banks import assert_bank_refused, export_family, worst_difference
from tests.support.merging_models import ROTARY, merging_model
from tests.support.strategies import Setup
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit.backbones.merge_schedule import TokenMerging
from vptkit.errors import AdapterError
from vptkit.export.bank import edit_bank
from vptkit.export.bank.export_bank import export_bank
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import write_tensors
from vptkit.runtime import open_session

MERGED = Setup(image=(32, 32), merge=3, prompt_scale=0.3)


@pytest.fixture(scope="module")
def members():
    torch.manual_seed(0)
    return family(MERGED)


@pytest.mark.parametrize("form", ["absorbed", "query", "full"])
def test_a_mixed_batch_says_what_the_reference_says(tmp_path, members, form):
    bundle = export_family(tmp_path, members, ExportOptions(last_block=form))
    assert worst_difference(bundle, members) <= PARITY_FP32
    entry = open_bundle(bundle).manifest["merging"]
    assert (entry["schedule"], entry["tuned"], entry["asked"]) == ([3, 3, 0], True, None)


@pytest.mark.parametrize(("pool", "attention"), [("avg", "plain"), ("token+avg", "proportional")])
def test_pools(tmp_path, pool, attention):
    torch.manual_seed(0)
    setup = replace(MERGED, pool=pool, norm="after_pool", registers=1, merge_attention=attention)
    members = family(setup, ("bilinear", "both", "linear"))
    assert worst_difference(export_family(tmp_path, members), members) <= PARITY_FP32


def test_a_broken_twin_fails(tmp_path, members):
    """The same adapters as a bank that merges otherwise."""
    bundle = export_family(tmp_path, members, ExportOptions(merge="2", merge_attention="plain"))
    assert worst_difference(bundle, members) > 30 * PARITY_FP32


def test_adapters_that_were_tuned_differently(tmp_path, members):
    def change(adapter):
        return replace(adapter, merging=None)

    assert_bank_refused(tmp_path, members, change, AdapterError, "different merging.*--merge")
    paths = write_family(members, tmp_path)
    plain = replace(read_adapter(paths["linear"]), merging=None, name="plain")
    write_adapter(tmp_path / "plain.safetensors", plain)
    bank = tmp_path / "bank.vptk"
    export_bank(
        [paths["bilinear"], tmp_path / "plain.safetensors"],
        bank,
        weights=paths["weights"],
        options=ExportOptions(merge=3),
    )
    opened = open_bundle(bank)
    assert not opened.manifest["merging"]["tuned"]
    assert opened.golden("bilinear") is not None
    assert opened.golden("plain") is None  # another network's


def test_adding_and_refusing(tmp_path, members):
    paths = write_family(members, tmp_path)
    bank, linear = tmp_path / "bank.vptk", read_adapter(paths["linear"])
    export_bank([paths["bilinear"], paths["both"]], bank, weights=paths["weights"])
    edit_bank.add(bank, paths["linear"])
    images = members.case.images
    logits = open_session(bank, threads=1).run(images, "linear")[:, :3]
    expected = members.reference("linear")
    assert np.abs(logits - expected).max() <= PARITY_FP32 * np.abs(expected).max()
    other = TokenMerging(schedule=(2, 2, 0))
    write_adapter(tmp_path / "other.safetensors", replace(linear, merging=other, name="other"))
    with pytest.raises(AdapterError, match=r"tuned with tokens merged \(2,2,0, proportional"):
        edit_bank.add(bank, tmp_path / "other.safetensors")


def test_a_changed_bias_of_keys_is_refused(tmp_path, members):
    """Attention does not see it, merging does."""

    def biased(adapter):
        delta = np.ones(3 * members.case.spec.width, np.float32)
        return replace(adapter, tensors={**adapter.tensors, "delta.blocks.0.attn.qkv.bias": delta})

    assert_bank_refused(tmp_path, members, biased, AdapterError, "bias of keys, by which tokens")


OTHERS = {
    **ROTARY,
    "attention pooling": "vit_base_patch16_siglip_224",
    "side by side": "vit_base_patch16_xp_224",
    "several attentions": "vit_base_patch16_18x2_224",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_banks_of_other_architectures(tmp_path, kind):
    case = merging_model(OTHERS[kind], pool="map" if kind == "attention pooling" else "avg")
    weights = {k: v.astype(np.float32) for k, v in case.weights.items()}
    write_tensors(tmp_path / "weights.safetensors", weights)
    backbone = replace(case.adapter.backbone, sha256=None)
    prompted = replace(case.adapter, backbone=backbone, name="prompted")
    head = {k: -v for k, v in prompted.tensors.items() if k.startswith("head")}
    bare = replace(prompted, name="bare", insert="none", prompt_length=0, tensors=head)
    for adapter in (prompted, bare):
        write_adapter(tmp_path / f"{adapter.name}.safetensors", adapter)
    out, files = tmp_path / "bank.vptk", ("prompted.safetensors", "bare.safetensors")
    export_bank([tmp_path / n for n in files], out, weights=tmp_path / "weights.safetensors")
    asked = [name for name in ("prompted", "bare") for _ in case.images]
    found = open_session(out, threads=1).run(np.tile(case.images, (2, 1, 1, 1)), asked)
    for logits, adapter in zip(np.split(found, 2), (prompted, bare), strict=True):
        assert largest_difference(logits, case.reference(adapter)) <= PARITY_FP32
