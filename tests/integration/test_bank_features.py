"""Features of a bank: of each image those that its own adapter's baked bundle gives."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support.bank_cases import family
from tests.support.exported_banks import export_family, worst_difference
from tests.support.strategies import Setup
from tests.support.tolerances import CLEARLY, PARITY_FP32, largest_difference
from vptkit.errors import BundleError
from vptkit.export.bank.edit_bank import add, remove
from vptkit.export.bundle.export_bundle import export
from vptkit.export.bundle.export_options import ExportOptions
from vptkit.formats.bank_tables import BankShape
from vptkit.formats.bundle import open_bundle
from vptkit.runtime import open_session

SETUPS = {
    "class token": {},
    "both halves, one length": {"pool": "token+avg"},
    "a norm behind the mean": {"pool": "avg", "norm": "after_pool"},
    "no norm": {"final_norm": False},
}
KINDS = ("both", "linear")


@pytest.mark.slow
@pytest.mark.parametrize("form", SETUPS)
def test_a_mixed_batch_gives_the_features_of_each_baked_bundle(tmp_path, form):
    members = family(replace(Setup(depth=2), **SETUPS[form]), KINDS)
    options = ExportOptions(output="both", normalize_features="one length" in form)
    out = export_family(tmp_path, members, options)
    assert worst_difference(out, members) <= PARITY_FP32  # the logits are what they were
    images, names = members.case.images, list(members.adapters)
    with open_session(out, threads=1) as bank:
        found = bank.answers(np.repeat(images[:1], len(names), axis=0), names)["features"]
        several = bank.features(images, names[0])
    for row, name in zip(found, names, strict=True):
        alone = tmp_path / f"{name}.vptk"
        weights = tmp_path / "weights.safetensors"
        export(tmp_path / f"{name}.safetensors", alone, weights=weights, options=options)
        with open_session(alone, threads=1) as session:
            expected = session.features(images)
        assert largest_difference(row, expected[0]) <= PARITY_FP32
        if name == names[0]:
            assert largest_difference(several, expected) <= PARITY_FP32
    assert largest_difference(found[0], found[1]) > CLEARLY * PARITY_FP32


@pytest.mark.slow
def test_adapters_come_and_go_and_run_saves_features(vptkit, tmp_path):
    """A fixed batch, fp16 and an added adapter; no torch, no backbone."""
    from PIL import Image

    from vptkit.export.precision.lowering import Lowering

    members = family(Setup(depth=2), KINDS)
    options = ExportOptions(output="both", batch=2, lowering=Lowering(precision="fp16"))
    out = export_family(tmp_path, members, options)
    images = np.repeat(members.case.images, 2, axis=0)[:3]
    with open_session(out, threads=1) as bank:
        before = bank.features(images, "both")
        remove(out, "both")
        add(out, tmp_path / "both.safetensors")
        np.testing.assert_array_equal(bank.features(images, "both"), before)
        assert bank.features(images[:0], "both").shape == (0, before.shape[1])
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    save = tmp_path / "f.npy"
    code, _, err = vptkit(
        "run", out, tmp_path / "a.png", "--adapter", "both", "--features", save, "--backend", "cpu"
    )
    assert code == 0, err
    assert np.load(save).shape == (1, before.shape[1])
    bundle = open_bundle(out)
    manifest = json.loads(json.dumps(bundle.manifest))
    manifest["outputs"][1]["shape"][1] += 1
    with pytest.raises(
        BundleError, match=r"features have 33 numbers, a head of this bank reads 32"
    ):
        BankShape.of_manifest(manifest, bundle.spec)
