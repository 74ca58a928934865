"""The head trained again behind the scaled norms."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


from vptkit.formats.adapter import read_adapter  # noqa: E402
from vptkit.tune import tune  # noqa: E402


def test_a_refit_is_kept_only_if_val_gains(splits, make_config, tmp_path, monkeypatch):
    from vptkit.tune.phases import head_refit

    real = head_refit.top1_and_loss
    for gain, changed in ((-0.5, False), (0.5, True)):
        with monkeypatch.context() as patch:
            patch.setattr(
                head_refit, "top1_and_loss", lambda *a, g=gain: (real(*a)[0] - g, real(*a)[1])
            )
            config = make_config(method="ln", refit_epochs=2, lr_head=1e-4, name="x")
            refit = tune(splits, tmp_path / f"{gain}.safetensors", config)
        plain = tune(
            splits,
            tmp_path / f"{gain}p.safetensors",
            make_config(method="ln", lr_head=1e-4, name="x"),
        )
        heads = [read_adapter(r.adapter).tensors["head.weight"] for r in (refit, plain)]
        assert np.array_equal(*heads) != changed
        norms = [read_adapter(r.adapter).layer_norms() for r in (refit, plain)]
        assert all(np.array_equal(norms[0][k], norms[1][k]) for k in norms[0])
