"""Kinds and options that do not become weights are refused by name, with the reason."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from vptkit.errors import AdapterError
from vptkit.tune.peft_adapters.native_kinds import NATIVE
from vptkit.tune.peft_adapters.refused_kinds import BY_PEFT, is_native, kind_of_adapter


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING can't be merged .* language model"),
        ({"peft_type": "XLORA"}, "XLORA can't be merged .* several adapters"),
        ({"peft_type": "LILY"}, "PEFT itself does not merge it"),
        ({"peft_type": "SHADOW"}, "second network"),
        ({"peft_type": ["LORA"]}, "peft_type is .*, expected LORA"),
        ({"peft_type": None}, "peft_type is 'None'"),
        ({}, "peft_type is 'None'"),
        ({"peft_type": "LORA", "alora_invocation_tokens": [1]}, "aLoRA changes only what follows"),
        ({"peft_type": "LORA", "arrow_config": {"top_k": 1}}, "Arrow chooses among adapters"),
        ({"peft_type": "LORA", "layer_replication": [[0, 1]]}, "it repeats blocks"),
        ({"peft_type": "LORA", "target_parameters": ["a"]}, "target_parameters can't be merged"),
        ({"peft_type": "ADALORA", "use_qalora": True}, "use_qalora can't be merged"),
        (
            {"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"},
            "init_lora_weights is 'pissa_",
        ),
        ({"peft_type": "LORA", "init_lora_weights": "loftq"}, "as a plain LoRA"),
        ({"peft_type": "LORA", "use_newlora": True}, "options of LORA that are not known.*newlora"),
        ({"peft_type": "IA3", "scaling": 2}, "options of IA3 that are not known.*scaling"),
        ({"peft_type": "LN_TUNING", "gain": 2}, "options of LN_TUNING that are not known.*gain"),
        ({"peft_type": "VERA", "save_projection": False}, "save_projection is off"),
        ({"peft_type": "PVERA", "sample_at_inference": True}, "its answers are random"),
    ],
)
def test_refused(config, message):
    with pytest.raises(AdapterError, match=message):
        kind_of_adapter(config)


def test_taken():
    for kind in (*NATIVE, *BY_PEFT, "LN_TUNING"):
        assert kind_of_adapter({"peft_type": kind}) == kind
        assert is_native(kind, {}) == (kind in NATIVE)
    new = {"peft_type": "LORA", "use_newlora": False, "alora_invocation_tokens": None}
    assert kind_of_adapter(new) == "LORA"
    assert not is_native("LORA", {"init_lora_weights": "olora"})
    assert is_native("LORA", {"init_lora_weights": "eva"})


@pytest.mark.slow
def test_every_kind_of_the_installed_peft():
    """A kind that PEFT gains is refused until someone says what it is."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    if not peft.__version__.startswith("0.21."):
        pytest.skip("another PEFT than the one whose kinds are known")
    for kind in peft.PeftType:
        assert kind.value in {*NATIVE, *BY_PEFT, "LN_TUNING"} or _is_refused(kind.value)


def _is_refused(kind):
    with pytest.raises(AdapterError, match="can't be merged into weights"):
        kind_of_adapter({"peft_type": kind})
    return True
