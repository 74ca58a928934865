"""`vptkit.tune.tune`: which way a method goes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.tune.auto import tune_method


@pytest.mark.parametrize("method", ["auto", "ln", "linear"])
def test_auto_goes_its_own_way(make_config, tmp_path, monkeypatch, method):
    monkeypatch.setattr(tune_method, "tune_auto", lambda request: ("auto", request.test))
    monkeypatch.setattr(tune_method, "tune_one", lambda *_, test, **__: ("one", test))
    config = make_config(method=method)
    found = tune_method.tune(tmp_path, tmp_path / "a.safetensors", config, test=False)
    assert found == ("auto" if method == "auto" else "one", False)
