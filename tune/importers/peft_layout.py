"""What PEFT's LayerNorm adapters mean, in ours.

    base_model.model.{norm}.ln_tuning_layers.{weight, bias}     a whole norm each
    base_model.model.{head or classifier}.{weight, bias}        if it was saved along

Norms have timm's names, or those of transformers' ViT. Seen with PEFT 0.21.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vptkit.errors import AdapterError
from vptkit.formats.backbone_weights import norm_shapes
from vptkit.regular_files import read_regular
from vptkit.strict_json import parse_json

from .imported_tensors import Foreign, renamed, require_shape, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.formats.backbone_spec import BackboneSpec

__all__ = ["from_peft", "peft_config", "peft_file"]

_MOST_CONFIGURATION = 2**20  # bytes
_PEFT = re.compile(r"base_model\.model\.(.+)\.ln_tuning_layers\.(weight|bias)")
_PEFT_HEAD = re.compile(r"base_model\.model\.(?:head|classifier)\.(weight|bias)")
_TRANSFORMERS = (  # names of transformers' ViT, before and since its version 5 → timm
    (r"(?:vit\.)?(?:encoder\.layer|layers)\.(\d+)\.layernorm_before", r"blocks.\1.norm1"),
    (r"(?:vit\.)?(?:encoder\.layer|layers)\.(\d+)\.layernorm_after", r"blocks.\1.norm2"),
    (r"(?:vit\.)?layernorm", "norm"),
)
_TRANSFORMERS_BLOCK = re.compile(r"((?:vit\.)?)(encoder\.layer|layers)\.\d+\.")


def peft_file(path: Path) -> Path:
    """The tensors of an adapter: the file itself, or that in a folder of `save_pretrained`.

    Raises:
        AdapterError: the folder holds none.
    """
    if not path.is_dir():
        return path
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (path / name).is_file():
            return path / name
    raise AdapterError(f"{path}: has no adapter_model.safetensors, as PEFT writes it")


def peft_config(path: Path) -> dict[str, Any]:
    """The adapter_config.json beside an adapter's tensors.

    Raises:
        AdapterError: missing, no regular file, or no JSON object; modules that are neither named
            nor given by a pattern that ends soon.
    """
    try:
        text = read_regular(path, AdapterError, limit=_MOST_CONFIGURATION)
        document = parse_json(text, path, AdapterError)
    except AdapterError as error:
        raise AdapterError(f"no readable {path.name} beside it: {error}") from error
    for key in ("target_modules", "exclude_modules"):
        _require_modules(f"{path.name}: {key}", document.get(key))
    return document


def _require_modules(key: str, wanted: Any) -> None:
    """Names, or a pattern: a stranger's, which must not run for ever on a name of ours."""
    if isinstance(wanted, str):
        bare = re.sub(r"\[\^?\]?[^\]]*\]", "c", re.sub(r"\\.", "c", wanted))
        nested = re.search(r"\)[*+{]|\(\?[^:]", bare) or re.search(r"\\\d", wanted)
        if len(wanted) > 1000 or nested or sum(map(bare.count, "*+{")) > 4 or bare.count("?") > 8:
            raise AdapterError(
                f"{key} is a pattern that may run for ever; expected a list of names"
            )
        try:
            re.compile(wanted)
        except (re.error, OverflowError, RecursionError) as error:
            raise AdapterError(f"{key} is no pattern: {error}") from error
    elif wanted is not None and (
        not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted)
    ):
        raise AdapterError(f"{key} is {str(wanted)[:80]!r}, expected names or a pattern")


def from_peft(
    state: Mapping[str, NDArray[Any]], config: Mapping[str, Any], spec: BackboneSpec
) -> Foreign:
    """PEFT's LayerNorm adapters (adapter_model.safetensors and adapter_config.json).

    Raises:
        AdapterError: another kind of adapter, names that are missing or not known, or norms that
            the configuration names and the file does not hold.
    """
    if config.get("peft_type") != "LN_TUNING":
        named = str(config.get("peft_type"))[:80]
        raise AdapterError(f"peft_type is {named!r}, expected 'LN_TUNING'")
    found = Foreign("ln")
    modules: dict[str, str] = {}  # timm's name → the file's
    unknown = []
    known = norm_shapes(spec)
    for key, value in state.items():
        if match := _PEFT_HEAD.fullmatch(key):
            found.head[match[1]] = value
        elif (match := _PEFT.fullmatch(key)) and f"{_timm_norm(match[1])}.{match[2]}" in known:
            name = _timm_norm(match[1])
            modules[name] = match[1]
            require_shape(key, value, known[f"{name}.{match[2]}"])
            found.tensors[f"ln.{name}.{match[2]}"] = value.astype("float32")
        else:
            unknown.append(key)
    if unknown:
        raise AdapterError(f"not LayerNorms of this backbone, nor its head: {some(unknown)}")
    if any("layernorm" in name for name in modules.values()):
        found.pool = "token"  # transformers' ViT
    _require_targets(modules, config, known, found.tensors)
    return found


def _timm_norm(name: str) -> str:
    return renamed(name, _TRANSFORMERS)


def _require_targets(
    modules: Mapping[str, str],
    config: Mapping[str, Any],
    known: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
) -> None:
    """Every norm that the file has, or that the configuration targets, is there as a whole."""
    wanted = {
        name
        for name in (key.rpartition(".")[0] for key in known)
        if name in modules or _targets(_their_norm(name, modules.values()), config)
    }
    missing = [k for k in known if k.rpartition(".")[0] in wanted and f"ln.{k}" not in tensors]
    if missing or not modules:
        raise AdapterError(f"names are missing: {some(missing or ['*.ln_tuning_layers.*'])}")


def _their_norm(name: str, examples: Iterable[str]) -> str:
    """What transformers calls a norm of ours, if the other names of the file are its."""
    style = next((m for e in examples if (m := _TRANSFORMERS_BLOCK.match(e))), None)
    if style is None:
        return name
    if match := re.fullmatch(r"blocks\.(\d+)\.norm([12])", name):
        end = "layernorm_before" if match[2] == "1" else "layernorm_after"
        return f"{style[1]}{style[2]}.{match[1]}.{end}"
    return f"{style[1]}layernorm" if name == "norm" else name


def _targets(name: str, config: Mapping[str, Any]) -> bool:
    """Whether PEFT's configuration means this module, as PEFT decides it."""

    def matches(wanted: Any) -> bool:
        if isinstance(wanted, str):
            return re.fullmatch(wanted, name) is not None
        return any(name == w or name.endswith(f".{w}") for w in wanted or ())

    return matches(config.get("target_modules")) and not matches(config.get("exclude_modules"))
