"""What only PEFT itself can merge, by PEFT: in float32, on bare modules under the adapter's own names.

Merging needs no forward pass, so no model of transformers is built, nothing is imported by a name
that a file gives, and names of both generations work. The configuration reaches PEFT with the
modules that the file has tensors of in place of its patterns, and with bounded numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vptkit.errors import AdapterError, MissingExtraError
from vptkit.tune.foreign_tensors.imported_tensors import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["BareModule", "merged_by_peft"]

# What the modules stand for, what PEFT would fetch, and options of LoRA that load something:
# `megatron_core` is the name of a module that it would import.
_WITHHELD = """
    auto_mapping base_model_name_or_path revision task_type peft_version exclude_modules
    layers_to_transform layers_pattern modules_to_save megatron_config megatron_core loftq_config
    eva_config corda_config lora_ga_config runtime_config ensure_weight_tying qalora_group_size
"""
_NOT_PASSED = frozenset(_WITHHELD.split())
_FORCED: dict[str, Any] = {"inference_mode": True, "bias": "none", "progressbar": False}
# Bounds of whole numbers in a configuration: PEFT makes room by them before it reads a tensor.
_OF_MODULES = "r init_r target_r hybrid_r mini_r subspace_rank vector_length rank_pattern"
_RANKS = frozenset(_OF_MODULES.split())
_LONG = frozenset({"n_frequency", "n_frequency_pattern", "theta_d_length"})  # of vectors
_OF_TRAINING = """
    tinit tfinal deltaT total_step init_warmup final_warmup mask_interval random_loc_seed
    projection_prng_key proj_seed projection_seed random_seed generator_seed
"""
_FREE = frozenset(_OF_TRAINING.split())
_MOST, _MOST_LONG = 4096, 1 << 24
_PREFIX = "base_model.model."
# PEFT raises what its arguments lead to; its files are strangers'
_FAULTS = (
    *(ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, RecursionError),
)
_NOT_SAVED = re.compile(r"\.base_layer\.|\.ranknum\.")  # AdaLoRA's is its rank


@dataclasses.dataclass(frozen=True, slots=True)
class BareModule:
    """A module that an adapter targets.

    Attributes:
        weight: [out, in], or [out, channels, height, width] of a convolution with that stride.
        bias: [out] or None.
    """

    weight: NDArray[Any]
    bias: NDArray[Any] | None

    def built(self) -> nn.Module:
        """The same as torch's."""
        out, inner, *kernel = self.weight.shape
        bias = self.bias is not None
        module: nn.Module
        if kernel:
            size = (int(kernel[0]), int(kernel[1]))
            module = nn.Conv2d(inner, out, size, stride=size, bias=bias)
        else:
            module = nn.Linear(inner, out, bias=bias)
        state = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
        return module.requires_grad_(False).eval()


def merged_by_peft(
    modules: Mapping[str, BareModule],
    config: Mapping[str, Any],
    state: Mapping[str, NDArray[Any]],
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Weight and bias of each module as PEFT merges an adapter into it.

    Args:
        modules: by the adapter's names, in the order of the model.
        config: PEFT's, checked.
        state: the adapter's tensors, without what is no part of PEFT's layers.

    Raises:
        AdapterError: PEFT can't, or tensors are missing or left over.
        MissingExtraError: PEFT is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(
            "peft", "peft", f"merging an adapter of {config['peft_type']}"
        ) from error
    settings = _settings(peft, config, modules)
    tree = nn.Module()
    for name, bare in modules.items():
        _put(tree, name, bare.built())
    with _quiet():
        try:
            model = peft.get_peft_model(tree, settings)
            loaded = _load(peft, model, state)
            merged = model.merge_and_unload(safe_merge=True)
        except _FAULTS as error:
            raise AdapterError(f"PEFT does not merge it: {_one_line(error)}") from error
    _require_all(loaded)
    return {
        name: {k: v.detach().numpy() for k, v in merged.get_submodule(name).state_dict().items()}
        for name in modules
    }


def _load(peft: Any, model: Any, state: Mapping[str, NDArray[Any]]) -> tuple[list[str], list[str]]:
    """Missing and unexpected keys of PEFT's own layers."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    result = peft.set_peft_model_state_dict(model, tensors)
    places: dict[int, set[str]] = {}  # of a parameter: all names, as some are shared
    for name, value in model.named_parameters(remove_duplicate=False):
        if not _NOT_SAVED.search(name):
            places.setdefault(value.data_ptr(), set()).add(name)
    missing = set(result.missing_keys)
    absent = [min(names) for names in places.values() if names <= missing]
    return absent, list(result.unexpected_keys)


def _require_all(loaded: tuple[list[str], list[str]]) -> None:
    for names, what in zip(loaded, ("are missing", "are not known to PEFT"), strict=True):
        if names:
            raise AdapterError(f"tensors {what}: {some(sorted(names))}")


def _settings(peft: Any, config: Mapping[str, Any], modules: Mapping[str, BareModule]) -> Any:
    """PEFT's configuration: what it has a field for, in bounds, of exactly these modules."""
    kind = config["peft_type"]
    known = {str(key.value): cls for key, cls in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known:
        raise AdapterError(
            f"this PEFT ({peft.__version__}) does not know {kind}: pip install -U peft"
        )
    fields = {f.name for f in dataclasses.fields(known[kind]) if f.init}
    given = {k: v for k, v in config.items() if k in fields - _NOT_PASSED}
    if odd := sorted(k for k, v in config.items() if v and k not in fields | _NOT_PASSED):
        raise AdapterError(
            f"options that this PEFT ({peft.__version__}) does not know: {', '.join(odd[:8])[:200]}"
        )
    _require_bounded(given, max(max(bare.weight.shape) for bare in modules.values()))
    given |= {"target_modules": list(modules)}
    given |= {key: value for key, value in _FORCED.items() if key in fields}
    try:
        return known[kind](**{k: v for k, v in given.items() if k != "peft_type"})
    except _FAULTS as error:
        raise AdapterError(f"PEFT does not take its configuration: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _require_bounded(given: Mapping[str, Any], widest: int) -> None:
    for key, value in given.items():
        most = widest if key in _RANKS else _MOST
        most = _MOST_LONG if key in _LONG else most
        for number in value.values() if isinstance(value, dict) else [value]:
            if isinstance(number, (int, float)) and abs(number) > most and key not in _FREE:
                raise AdapterError(f"{key} is {number}, expected at most {most}")


def _put(tree: nn.Module, name: str, module: nn.Module) -> None:
    *parents, last = name.split(".")
    for part in parents:
        if part not in tree._modules:  # noqa: SLF001 -- hasattr finds methods, too
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    tree.add_module(last, module)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PEFT warns of what does not matter to a merge; BOFT would compile code for CUDA."""
    from unittest.mock import patch

    from peft.tuners.boft import layer

    with (
        warnings.catch_warnings(),
        patch.object(layer, "get_fbd_cuda", lambda: None),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield
