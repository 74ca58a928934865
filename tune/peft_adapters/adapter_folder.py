"""A folder of PEFT's `save_pretrained`: where its tensors are, and what its configuration means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vptkit.errors import AdapterError
from vptkit.regular_files import is_file, is_folder, read_regular
from vptkit.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["is_peft", "pattern_value", "peft_config", "peft_file", "targets", "untargeted"]

CONFIGURATION = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_MOST_CONFIGURATION = 2**20  # bytes
_MOST_PATTERNS = 2000  # one for each module, where PEFT chose ranks (EVA)
_MOST_NUMBER = 10**9
_LISTS = ("target_modules", "exclude_modules", "layers_pattern")
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")  # the first numbered part, as PEFT finds it


def is_peft(path: Path) -> bool:
    """Whether this is a folder as PEFT saves it, or the file of tensors in one."""
    if is_folder(path):
        return is_file(path / CONFIGURATION)
    return path.name in _FILES and is_file(path.with_name(CONFIGURATION))


def peft_file(path: Path) -> Path:
    """The tensors of an adapter: the file itself, or that in a folder of `save_pretrained`.

    Raises:
        AdapterError: the folder holds none.
    """
    if not is_folder(path):
        return path
    for name in _FILES:
        if is_file(path / name):
            return path / name
    raise AdapterError(f"{path}: has no {_FILES[0]}, as PEFT writes it")


def peft_config(path: Path) -> dict[str, Any]:
    """The adapter_config.json beside an adapter's tensors.

    Raises:
        AdapterError: missing, no regular file, or no JSON object; modules or ranks that are neither
            named nor given by a pattern that ends soon.
    """
    try:
        text = read_regular(path, AdapterError, limit=_MOST_CONFIGURATION)
        document = parse_json(text, path, AdapterError)
    except AdapterError as error:
        raise AdapterError(f"no readable {path.name} beside it: {error}") from error
    for key in _LISTS:
        _require_modules(f"{path.name}: {key}", document.get(key))
    for key in document:
        if key.endswith("_pattern") and key not in _LISTS:  # of ranks, of alphas, …
            _require_numbers(f"{path.name}: {key}", document[key])
    _require_layers(f"{path.name}: layers_to_transform", document.get("layers_to_transform"))
    return document


def _require_modules(key: str, wanted: Any) -> None:
    """Names, or a pattern: a stranger's, which must not run for ever on a name of ours."""
    if isinstance(wanted, str):
        _require_pattern(key, wanted)
    elif wanted is not None and (
        not isinstance(wanted, list)
        or len(wanted) > _MOST_PATTERNS
        or not all(isinstance(name, str) for name in wanted)
    ):
        raise AdapterError(f"{key} is {str(wanted)[:80]!r}, expected names or a pattern")
    elif wanted is not None and key.endswith("layers_pattern"):  # of which each is a pattern
        for pattern in wanted:
            _require_pattern(key, pattern, repeats=2)


def _require_pattern(key: str, wanted: str, *, repeats: int = 4) -> None:
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "c", re.sub(r"\\.", "c", wanted))
    nested = re.search(r"\)[*+{]|\(\?[^:]", bare) or re.search(r"\\\d", wanted)
    too_many = sum(map(bare.count, "*+{")) > repeats or bare.count("?") > 8
    if len(wanted) > 1000 or nested or too_many:
        raise AdapterError(f"{key} is a pattern that may run for ever; expected a list of names")
    try:
        re.compile(wanted)
    except (re.error, OverflowError, RecursionError) as error:
        raise AdapterError(f"{key} is no pattern: {error}") from error


def _require_numbers(key: str, wanted: Any) -> None:
    """Patterns of module names, and a positive number for each (AdaLoRA: which ranks are kept)."""
    if wanted is None:
        return
    if not isinstance(wanted, dict) or len(wanted) > _MOST_PATTERNS:
        raise AdapterError(f"{key} is {str(wanted)[:80]!r}, expected modules and their numbers")
    for pattern, value in wanted.items():
        _require_pattern(f"{key}: {pattern[:80]!r}", pattern, repeats=2)
        kept = isinstance(value, list) and all(isinstance(one, bool) for one in value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        if not kept and not number:
            raise AdapterError(
                f"{key}: {pattern[:80]!r} is {str(value)[:80]!r}, expected a positive number"
            )


def _require_layers(key: str, wanted: Any) -> None:
    layers = wanted if isinstance(wanted, list) else [wanted]
    whole = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in layers)
    if wanted is not None and not whole:
        raise AdapterError(f"{key} is {str(wanted)[:80]!r}, expected numbers of blocks")


def targets(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a configuration means this module, as PEFT decides it.

    Args:
        name: of a module of the model that was trained.
        config: checked by `peft_config`.
    """
    wanted = config.get("target_modules")
    if _matches(name, config.get("exclude_modules")) or not _matches(name, wanted):
        return False
    layers = config.get("layers_to_transform")
    if layers is None or layers == [] or isinstance(wanted, str):
        return True
    block = _block(name, config.get("layers_pattern"))
    return block is not None and block in (layers if isinstance(layers, list) else [layers])


def _matches(name: str, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return wanted == "all-linear" or re.fullmatch(wanted, name) is not None
    return any(name == w or name.endswith(f".{w}") for w in wanted or ())


def _block(name: str, pattern: Any) -> int | None:
    """The number of the block in a module's name, where PEFT looks for it."""
    if not pattern:
        match = _LAYER.match(name)
        return int(match[1]) if match else None
    for one in [pattern] if isinstance(pattern, str) else pattern:
        if match := re.match(rf"(?:^|.*?\.)(?:{one})\.(?P<block>\d+)\.", name):
            return int(match["block"])
    return None


def pattern_value(
    name: str, config: Mapping[str, Any], key: str, patterns: str, default: int
) -> float:
    """A module's own rank or alpha; the first pattern that fits the end of its name decides.

    Args:
        name: of the module.
        config: checked by `peft_config`.
        key: what holds for all, as "lora_alpha".
        patterns: what holds for some, as "alpha_pattern".
        default: PEFT's.

    Raises:
        AdapterError: it is no number.
    """
    value = config.get(key, default)
    for pattern, own in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            value = own
            break
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _MOST_NUMBER:
        raise AdapterError(f"{key} of {name} is {str(value)[:80]!r}, expected a number")
    return value


def untargeted(wanted: Any, modules: Iterable[str]) -> list[str]:
    """Names of a list of targets that none of these modules is meant by."""
    if not isinstance(wanted, list):
        return []
    found = list(modules)
    return [w for w in wanted if not any(_matches(name, [w]) for name in found)]
