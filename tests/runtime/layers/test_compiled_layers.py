from __future__ import annotations

import pytest

from vptkit.errors import TargetError
from vptkit.runtime.engine_build.engine_layers import Structure
from vptkit.runtime.engine_build.trt_rtx_oracle import Opinion
from vptkit.runtime.layers import compiled_layers as module
from vptkit.runtime.layers.profile_layers import LayerOptions, profile_layers


def told(monkeypatch, opinion):
    monkeypatch.setattr(module, "ask_oracle", lambda graph, sms: [opinion])


def test_layers_without_times(make_bundle, monkeypatch):
    from vptkit.runtime.engine_build.engine_layers import Layer

    kinds = {"inputs": ("Half",), "constants": (), "outputs": ()}
    layers = (
        Layer(name="mha", kind="kgen", nodes=("blocks.0.attn.q", "blocks.0.attn.k"), **kinds),
        Layer(name="copy", kind="kgen", nodes=(), **kinds),
    )
    structure = Structure(layers=layers, operators={}, quantized=())
    told(monkeypatch, Opinion(sm=86, stage="done", version="1.7", structure=structure))
    (found,) = profile_layers({"a": make_bundle()}, LayerOptions(backend="tensorrt-rtx"))
    assert [layer.place for layer in found.layers] == ["blocks.0.attention"] * 2
    assert found.layers[0].type == "Half"
    assert found.run_ms is None
    assert "no times" in found.note
    assert "8.6" in found.note


def test_what_is_not_compiled_is_an_error(make_bundle, monkeypatch):
    error = {"node": None, "operator": None, "message": "no such operator"}
    told(monkeypatch, Opinion(sm=86, stage="parse", errors=(error,)))
    with pytest.raises(TargetError, match="no such operator"):
        profile_layers({"a": make_bundle()}, LayerOptions(backend="tensorrt-rtx"))
