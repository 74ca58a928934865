"""What is given to PEFT and what not; without it, the error that says what to install."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import AdapterError, MissingExtraError
from vptkit.tune.peft_adapters.merged_by_peft import BareModule, merged_by_peft

MODULES = {"a.q": BareModule(np.ones((6, 4), np.float32), np.ones(6, np.float32))}
STATE = {
    f"base_model.model.a.q.hada_w{i}_{end}": np.full(shape, 0.5, np.float32)
    for i in (1, 2)
    for end, shape in (("a", (6, 2)), ("b", (2, 4)))
}
CONFIG = {"peft_type": "LOHA", "r": 2, "alpha": 4, "target_modules": ["q"]}


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"LOHA needs the package peft.*vptkit\[peft\]"):
        merged_by_peft(MODULES, CONFIG, STATE)


@pytest.fixture
def merge():
    pytest.importorskip("peft", reason="peft is not installed: nothing merges")

    def run(state=STATE, modules=MODULES, **config):
        return merged_by_peft(modules, CONFIG | config, state)

    return run


@pytest.mark.slow
def test_a_merge(merge):
    before = MODULES["a.q"].weight.copy()
    found = merge()["a.q"]
    np.testing.assert_allclose(found["weight"], 1 + 2 * 0.5**2, rtol=1e-6)  # (w1a w1b)(w2a w2b) s
    np.testing.assert_array_equal(found["bias"], 1)
    np.testing.assert_array_equal(MODULES["a.q"].weight, before)


@pytest.mark.slow
def test_nothing_of_a_configuration_is_imported(merge, monkeypatch):
    """Models, modules and caches that a file names are neither loaded nor looked for."""
    asked = []
    own = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda *a: asked.append(a[0]) or own(*a))
    merge(
        auto_mapping={"base_model_class": "Trap", "parent_library": "stranger"},
        base_model_name_or_path="someone/something",
        revision="main",
        task_type="CAUSAL_LM",
    )
    factors = {
        "base_model.model.a.q.lora_A.weight": np.ones((2, 4), np.float32),
        "base_model.model.a.q.lora_B.weight": np.ones((6, 2), np.float32),
    }
    merge(
        factors,
        peft_type="LORA",
        lora_alpha=2,
        alpha=None,
        init_lora_weights="olora",
        megatron_config={"a": 1},
        megatron_core="stranger.megatron",
        corda_config={"cache_file": "x"},
        runtime_config={"odd": 1},
    )
    assert not [name for name in asked if "stranger" in name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 10**9}, "r is 1000000000, expected at most 6"),
        ({"rank_pattern": {"q": 10**9}}, "rank_pattern is 1000000000, expected at most 6"),
        ({"r": "two"}, "PEFT does not"),
        ({"odd": 3}, "does not know: odd"),
        ({"r": 3}, "PEFT does not merge it: .*size mismatch"),
        ({"peft_type": "BONE_AGAIN"}, "does not know BONE_AGAIN"),
    ],
)
def test_configurations_of_a_stranger(merge, config, message):
    with pytest.raises(AdapterError, match=message):
        merge(**config)


@pytest.mark.slow
def test_tensors_that_are_missing_or_left_over(merge):
    name = min(STATE)
    with pytest.raises(AdapterError, match=r"tensors are missing: .*hada_w1_a"):
        merge({key: value for key, value in STATE.items() if key != name})
    with pytest.raises(AdapterError, match=r"tensors are not known to PEFT: .*w9"):
        merge({**STATE, "base_model.model.a.q.hada_w9": np.ones(2, np.float32)})


@pytest.mark.slow
def test_no_code_is_compiled(merge, monkeypatch):
    """PEFT's BOFT would build an extension for CUDA, and fall back in silence where it can't."""
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "load", lambda *_, **__: pytest.fail("compiles"))
    state = {
        "base_model.model.a.q.boft_R": np.zeros((1, 2, 2, 2), np.float32),
        "base_model.model.a.q.boft_s": np.ones((6, 1), np.float32),
    }
    boft = {"peft_type": "BOFT", "r": None, "alpha": None, "boft_block_size": 2}
    np.testing.assert_allclose(merge(state, **boft)["a.q"]["weight"], 1, rtol=1e-6)
    state["base_model.model.a.q.boft_R"] = np.zeros((2, 2, 2, 2), np.float32)
    with pytest.raises(AdapterError, match="PEFT does not merge it"):
        merge(state, **boft, boft_n_butterfly_factor=2)
