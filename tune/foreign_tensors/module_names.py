"""A stranger's names of modules and tensors → timm's, or a part of timm's.

base_model.model.{module}.{what PEFT put into it}     of PEFT's files
blocks.3.attn.qkv                                     a timm model in PEFT
timm_model.blocks.3.attn.qkv                          one in transformers' wrapper
vit.encoder.layer.3.attention.attention.query         transformers, old and new
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vptkit.checkpoints.hugging_face_names import Part, timm_module, timm_tensor
from vptkit.errors import AdapterError
from vptkit.formats.backbone_weights import is_head

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Key", "Names", "rows_of"]

_PREFIX = "base_model.model."
# what a timm model is called within other people's classes, and in transformers' wrapper
_WRAPPERS = re.compile(r"(?:(?:timm_model|model|module|backbone|encoder|visual|vit)\.)*")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_SAVED = re.compile(r"(.+)\.(modules_to_save|original_module)\.([^.]+)")


class Key(NamedTuple):
    """A tensor of a file.

    Attributes:
        module: the stranger's name of the module that it belongs to, "" if of none.
        end: what stands behind it, as "lora_A.weight"; of no module, the whole name.
    """

    module: str
    end: str


class Names:
    """Names as they are in a file that was trained on this backbone.

    Attributes:
        weights: the backbone's tensors by timm name.
        depth: how many blocks it has.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.weights = weights
        self._modules = {name.rpartition(".")[0] for name in weights} - {""}
        blocks = (_BLOCK.match(name) for name in weights)
        self.depth = 1 + max((int(match[1]) for match in blocks if match), default=-1)

    def module(self, name: str) -> Part | None:
        """Where a module is in timm; the classifier is "head". None: this backbone has none such."""
        bare = _unwrapped(name)
        if bare == "head" or bare in self._modules:
            return Part(bare)
        part = timm_module(name)
        if part is None or (part.name not in self._modules and not is_head(part.name)):
            return None
        return part

    def tensor(self, name: str) -> Part | None:
        """The same of a tensor."""
        bare = _unwrapped(name)
        if bare in self.weights or bare in ("head.weight", "head.bias"):
            return Part(bare)
        part = timm_tensor(name)
        if part is None:
            return None
        if part.name.endswith("attn.qkv.bias") and part.name not in self.weights:
            part = _separate_bias(part)
        if part is None or (part.name not in self.weights and not is_head(part.name)):
            return None
        return part

    def key(self, name: str) -> Key:
        """A tensor's name taken apart: the longest part of it that is a module of the backbone."""
        bare = name.removeprefix(_PREFIX)
        if match := _SAVED.fullmatch(bare):  # bias="all" writes them, beside the plain ones
            return Key(match[1], f"{match[2]}.{match[3]}")
        module = bare
        while "." in module:
            module = module.rpartition(".")[0]
            if self.module(module) is not None:
                return Key(module, bare[len(module) + 1 :])
        return Key("", bare)


def _unwrapped(name: str) -> str:
    found = _WRAPPERS.match(name)
    return name if found is None else name[found.end() :]


def _separate_bias(part: Part) -> Part | None:
    """Timm's BEiT keeps the biases of queries and values apart, and has none of keys."""
    ends = {(0, 3): "q_bias", (2, 3): "v_bias"}
    end = ends.get((part.index, part.count))
    if end is None:
        return None
    return part._replace(name=part.name.replace("qkv.bias", end), index=0, count=1)


def rows_of(part: Part, value: NDArray[Any]) -> slice:
    """The rows of a tensor that a part of it is.

    Raises:
        AdapterError: it has no such parts.
    """
    size, rest = divmod(value.shape[0], part.count)
    if rest:
        raise AdapterError(f"{part.name} is {value.shape}, which has no {part.count} equal parts")
    return slice(part.index * size, (part.index + 1) * size)
