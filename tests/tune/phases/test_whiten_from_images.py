"""Whitening matrices of random training images."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402
from vptkit.tune.data.splits import load_splits  # noqa: E402
from vptkit.tune.phases.whiten_from_images import whitening_matrices  # noqa: E402


def test_whitening_without_enough_tokens(splits, make_config, tmp_path):
    """Fewer directions than the width: the figures in the file stay numbers."""
    for compat in ("paper", "released"):
        config = make_config(form="fwhiten", whiten_images=1, compat=compat, epochs=1)
        result = tune(splits, tmp_path / f"{compat}.safetensors", config)
        noted = read_adapter(result.adapter).train["whitening"]
        assert len(noted) == 2
        assert all(note["rank"] < 32 for note in noted)


def test_the_images_of_the_whitening_do_not_depend_on_the_batch(splits, make_config, make_vit):
    from vptkit.tune.backbone.timm_backbone import preprocess_of
    from vptkit.tune.data.dataset import DataSet

    model = make_vit()
    data = DataSet(load_splits(splits, 0, 0.15, 0.15)[1]["train"], preprocess_of(model))
    full, _ = whitening_matrices(model, data, make_config(form="fwhiten", whiten_images=500))
    fewer, _ = whitening_matrices(model, data, make_config(form="fwhiten", whiten_images=5))
    again, notes = whitening_matrices(model, data, make_config(form="fwhiten", whiten_images=5))
    assert torch.equal(fewer[0], again[0])
    assert not torch.allclose(fewer[0], full[0])
    told = {"rank", "condition", "condition_is_bound", "row_norm"}
    assert set(notes[0]) == {*told, "kurtosis"}
    config = make_config(form="fwhiten", whiten_images=5)
    assert set(whitening_matrices(model, data, config, bursts=False)[1][0]) == told
