"""What of PEFT does not become weights, by name and with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import AdapterError

from .native_kinds import NATIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BY_PEFT", "is_native", "kind_of_adapter"]

# kinds that `merge_and_unload` of PEFT 0.21 merges, each tried (`tests/integration`)
_MERGED = """
    ADALORA ADAMSS BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA LOHA LOKR MISS OFT OSF
    PEANUT PSOFT PVERA RANDLORA ROAD SUPERTUNING TINYLORA UNILORA VBLORA VERA WAVEFT
"""
BY_PEFT = frozenset(_MERGED.split())
_OF_LANGUAGE = (
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE"
)
_REFUSED = {
    **dict.fromkeys(
        _OF_LANGUAGE.split(),
        "its prompts are of a language model, PEFT has none for images; prompts are tuned by vptkit "
        "tune --method vpt",
    ),
    **dict.fromkeys(
        ("XLORA", "POLY"),
        "it weighs several adapters for each input, so that no one set of weights does the same",
    ),
    "LILY": "PEFT itself does not merge it",
    "SHADOW": "it is a second network beside the layers, no other weights of them",
    "TRAINABLE_TOKENS": "it replaces rows of a text embedding",
}
# options of a LoRA that make something else of it, and why that is refused
_OPTIONS = {
    "alora_invocation_tokens": "aLoRA changes only what follows some tokens of a text",
    "arrow_config": "Arrow chooses among adapters for each token",
    "target_parameters": "parameters that belong to no linear are not read",
    "trainable_token_indices": "it replaces rows of a text embedding",
    "layer_replication": "it repeats blocks: another backbone",
    "use_bdlora": "block-diagonal factors are not read",
    "use_qalora": "QALoRA pools the inputs of quantised linears",
    "kasa_config": "KaSA changes the frozen weights, too",
    "velora_config": "VeLoRA is not read",
    "monteclora_config": "MonteCLoRA is not read",
}
# starts that take something off the frozen weights, without which the adapter means nothing; those
# that PEFT takes off again in the same way
_STARTS = ("pissa", "corda", "olora", "loftq", "lora_ga")
_STARTS_AGAIN = ("pissa", "olora")
# what a configuration says of training, of files and of what the tensors show; by any kind
_COMMON = """
    peft_type auto_mapping peft_version base_model_name_or_path revision task_type inference_mode
    target_modules exclude_modules modules_to_save layers_to_transform layers_pattern r rank_pattern
    alpha_pattern lora_alpha lora_dropout fan_in_fan_out bias use_rslora use_dora lora_bias
    init_lora_weights megatron_config megatron_core loftq_config eva_config corda_config
    lora_ga_config qalora_group_size runtime_config ensure_weight_tying feedforward_modules
    init_ia3_weights init_weights mask_type random_seed
"""
_OF_NO_EFFECT = frozenset(_COMMON.split())
# switches off: what they leave out of the file comes from a generator of the machine that trained
_SAVED = ("save_projection", "save_precomputed_indices")


def kind_of_adapter(config: Mapping[str, Any]) -> str:
    """PEFT's name of a kind that can be merged here, natively or by PEFT.

    Raises:
        AdapterError: it can't be, or the configuration asks for something that is not known.
    """
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in {*NATIVE, *BY_PEFT, *_REFUSED, "LN_TUNING"}:
        raise AdapterError(
            f"peft_type is {str(kind)[:80]!r}, expected LORA, LN_TUNING, IA3 or another kind that "
            "PEFT 0.21 merges"
        )
    if kind in _REFUSED:
        raise AdapterError(f"peft_type {kind} can't be merged into weights: {_REFUSED[kind]}")
    if kind in ("LORA", "ADALORA"):
        _require_plain_lora(config)
    if kind not in BY_PEFT:
        _require_known(kind, config)
    for switch in _SAVED:
        if config.get(switch) is False:
            raise AdapterError(
                f"{switch} is off: the file lacks numbers that come from a generator, which is not "
                f"the same on every machine. Save it again with {switch}"
            )
    if config.get("sample_at_inference"):
        raise AdapterError("sample_at_inference: its answers are random; switch it off")
    return kind


def is_native(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether a kind that merges has a formula of ours (`native_kinds`), or PEFT must merge it."""
    again = kind == "LORA" and config.get("init_lora_weights") in _STARTS_AGAIN
    return kind in NATIVE and not again


def _require_plain_lora(config: Mapping[str, Any]) -> None:
    for option, reason in _OPTIONS.items():
        if config.get(option):
            raise AdapterError(f"{option} can't be merged into weights: {reason}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_STARTS) and start not in _STARTS_AGAIN:
        raise AdapterError(
            f"init_lora_weights is {start[:80]!r}, which takes a part of the frozen weights away. "
            "Save it with path_initial_model_for_weight_conversion, as a plain LoRA"
        )


def _require_known(kind: str, config: Mapping[str, Any]) -> None:
    odd = sorted(key for key, value in config.items() if value and key not in _OF_NO_EFFECT)
    odd = [key for key in odd if not (kind == "LORA" and key in _OPTIONS)]
    if odd:
        raise AdapterError(
            f"options of {kind} that are not known, so that what they change is not: "
            f"{', '.join(odd[:8])[:200]}"
        )
