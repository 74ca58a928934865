"""A file and a configuration of PEFT, in ours: changes of weights, whole tensors, and a head.

    base_model.model.{module}.lora_A.weight, …       of its kind (`native_kinds`, or PEFT merges)
    base_model.model.{module}.base_layer.bias        a whole bias (bias="all", "lora_only")
    base_model.model.{norm}.ln_tuning_layers.weight  a whole norm (LN_TUNING)
    base_model.model.{head or classifier}.weight     whole tensors, as `modules_to_save` leaves them

Seen with PEFT 0.21.2, and the names that transformers 4 and 5 give a Vision Transformer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.errors import AdapterError
from vptkit.formats.backbone_weights import is_head, norm_shapes
from vptkit.formats.weight_deltas import WeightDelta
from vptkit.tune.foreign_tensors.imported_tensors import Foreign, require_shape, some
from vptkit.tune.foreign_tensors.low_rank_form import low_rank_form
from vptkit.tune.foreign_tensors.module_changes import changed_modules, changed_tensor
from vptkit.tune.foreign_tensors.module_names import Names, rows_of

from .merged_by_peft import BareModule, merged_by_peft
from .missing_modules import missing_modules
from .native_kinds import NATIVE, Layer, outcome
from .refused_kinds import is_native, kind_of_adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vptkit.checkpoints.hugging_face_names import Part
    from vptkit.formats.backbone_spec import BackboneSpec
    from vptkit.formats.pooling import Pool

    Array = NDArray[np.float64]

__all__ = ["from_peft"]

_NORM_TENSORS = ("ln_tuning_layers.weight", "ln_tuning_layers.bias")
_PLAIN = ("weight", "bias", "base_layer.bias")
_TOWER = re.compile(r"(?:.*\.)?vision_model\.")  # of CLIP and of SigLIP
# transformers' models by their names: how they pool before a classifier, the epsilon of their norms
_MODELS: tuple[tuple[re.Pattern[str], Pool, float | None], ...] = (
    (re.compile(r"(?:.*\.)?dinov2(?:_with_registers)?\."), "token+avg", 1e-6),
    (re.compile(r"(?:.*\.)?(?:beit|data2vec_vision)\."), "avg", 1e-12),
    (re.compile(r"(?:.*\.)?(?:vit|deit)\."), "token", 1e-12),
    (re.compile(r"(?:encoder\.layer|layers)\.\d+\.|layernorm\b"), "token", None),  # of any
)


def from_peft(
    state: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    spec: BackboneSpec,
    weights: Mapping[str, NDArray[np.float32]],
) -> Foreign:
    """PEFT's adapters (adapter_model.safetensors and adapter_config.json).

    Args:
        state: the tensors.
        config: of `adapter_folder.peft_config`.
        spec: of the backbone that it was trained on.
        weights: the same one's tensors by timm name.

    Raises:
        AdapterError: a kind that does not merge; names that are missing or not known; shapes or
            numbers that do not fit.
        MissingExtraError: PEFT would have to merge it, and is not installed.
    """
    kind = kind_of_adapter(config)
    file = _File(state, kind, spec, weights)
    if not file.layers and not file.norms:
        raise AdapterError(f"names are missing: no module has tensors of {kind}")
    if missing := missing_modules(file.names, [*file.layers, *file.norms], config):
        raise AdapterError(f"names are missing, which the configuration means: {some(missing)}")
    found = Foreign(_method(kind, config), head=file.head)
    with np.errstate(all="ignore"):  # what is not finite is refused at the end
        found.tensors |= _changed(file, kind, config, weights)
    norms = norm_shapes(spec)
    for name, value in file.whole.items():
        found.tensors |= changed_tensor(name, value, weights, norms)
    _take_model(found, state, spec)
    return found


def _changed(
    file: _File, kind: str, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    if not file.layers:
        return {}
    changes = file.natively(config) if is_native(kind, config) else file.by_peft(config)
    if both := [part.name for part in changes if f"{part.name}.weight" in file.whole]:
        raise AdapterError(f"{some(both)}: changed, and replaced by modules_to_save")
    return changed_modules(changes, weights)


def _method(kind: str, config: Mapping[str, Any]) -> str:
    if kind == "LN_TUNING":
        return "ln"
    return "dora" if kind == "LORA" and config.get("use_dora") else kind.lower()


class _File:
    """The tensors of a file, sorted by what they are.

    Attributes:
        names: of the backbone.
        head: weight and bias of the classifier.
        layers: the stranger's module → the ends of its tensors' names → tensors of the kind.
        norms: the stranger's names of norms that LN_TUNING replaced.
        shared: the file's name → tensors of no one module (VeRA's projections).
        whole: timm's name → the new numbers of a whole tensor.
    """

    def __init__(
        self,
        state: Mapping[str, NDArray[Any]],
        kind: str,
        spec: BackboneSpec,
        weights: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.names, self.weights, self.state = Names(weights), weights, state
        self.head: dict[str, NDArray[Any]] = {}
        self.layers: dict[str, dict[str, str]] = {}  # the last: the file's name
        self.norms: dict[str, set[str]] = {}
        self.shared: dict[str, NDArray[Any]] = {}
        self.whole: dict[str, Array] = {}
        self._taken: dict[Part, str] = {}
        self._norm_names = norm_shapes(spec)
        unknown = [name for name in state if not self._sort(name, kind)]
        if unknown:
            raise AdapterError(f"not tensors of {kind} on this backbone: {some(unknown)}")
        self._require_whole_norms()
        self._require_linears()

    def _sort(self, name: str, kind: str) -> bool:
        module, end = self.names.key(name)
        if end.startswith("original_module."):
            return True  # the classifier before it was trained
        if end.startswith("modules_to_save."):
            end = end.removeprefix("modules_to_save.")
            if self._has(module, end):
                return True  # a second name of what the file has plainly
        part = self.names.module(module) if module else None
        if part is not None and is_head(part.name):
            return self._sort_head(module, part, end, self.state[name])
        return self._sort_inner(name, kind, module, end)

    def _sort_inner(self, name: str, kind: str, module: str, end: str) -> bool:
        """A tensor of the frozen backbone, or one that PEFT put beside it."""
        if kind == "LN_TUNING" and end in _NORM_TENSORS:
            end = end.rpartition(".")[2]
            self.norms.setdefault(module, set()).add(end)
            return self._replace(name, f"{module}.{end}", norm=True)
        if end in _PLAIN or not module:
            plain = f"{module}.{end.rpartition('.')[2]}" if module else end
            if self._replace(name, plain):
                return True
        if kind == "LN_TUNING" or (not module and kind in NATIVE):
            return False
        if module:
            self.layers.setdefault(module, {})[end] = name
        else:
            self.shared[name] = self.state[name]
        return True

    def _has(self, module: str, end: str) -> bool:
        return any(f"{prefix}{module}.{end}" in self.state for prefix in ("base_model.model.", ""))

    def _sort_head(self, module: str, part: Part, end: str, value: NDArray[Any]) -> bool:
        if part.name != "head":
            raise AdapterError(f"{module}: a second classifier, for a distillation token")
        if end not in ("weight", "bias"):
            raise AdapterError(
                f"{module}.{end}: its classifier is adapted, too, and what it was before is not in "
                "the file. Train it with the classifier among modules_to_save"
            )
        self.head[end] = value
        return True

    def _replace(self, name: str, plain: str, *, norm: bool = False) -> bool:
        """Take a whole tensor, or a part of one; False if the backbone has none of this name."""
        part = self.names.tensor(plain)
        if part is None or (norm and part.name not in self._norm_names):
            return False
        self._take(part, name)
        old, new = self._whole(part.name), self.state[name]
        rows = rows_of(part, old)
        if new.size == old[rows].size and [n for n in new.shape if n > 1] == [
            n for n in old[rows].shape if n > 1
        ]:
            new = new.reshape(old[rows].shape)  # CLIP's class token is [d]
        require_shape(name, new, old[rows].shape)
        old[rows] = new
        return True

    def _take(self, part: Part, name: str) -> None:
        if part in self._taken:
            raise AdapterError(f"{name} and {self._taken[part]} are one tensor of the backbone")
        self._taken[part] = name

    def _whole(self, name: str) -> Array:
        """A tensor of the backbone, to be changed."""
        if name not in self.whole:
            self.whole[name] = self.weights[name].astype(np.float64)
        return self.whole[name]

    def _require_whole_norms(self) -> None:
        missing = [
            f"{module}.ln_tuning_layers.{end}"
            for module, ends in self.norms.items()
            for end in ("weight", "bias")
            if end not in ends and self.names.tensor(f"{module}.{end}") is not None
        ]
        if missing:
            raise AdapterError(f"names are missing: {some(missing)}")

    def _require_linears(self) -> None:
        for module in self.layers:
            part = self._part(module)
            self._take(part, module)
            if self.weights.get(f"{part.name}.weight", np.empty(0)).ndim not in (2, 4):
                raise AdapterError(f"{module} is neither a linear nor a convolution here")

    def _part(self, module: str) -> Part:
        part = self.names.module(module)
        if part is None:  # only modules that the backbone has get here
            raise AdapterError(f"{module} is no module of this backbone")
        return part

    def _rows(self, module: str) -> NDArray[np.float32]:
        part = self._part(module)
        weight = self.weights[f"{part.name}.weight"]
        return weight[rows_of(part, weight)]

    def _bias(self, module: str) -> Array | None:
        """A view of the bias, to be changed; None if the backbone has none there."""
        part = self.names.tensor(f"{module}.bias")
        if part is None:
            return None
        whole = self._whole(part.name)
        return whole[rows_of(part, whole)]

    def natively(self, config: Mapping[str, Any]) -> dict[Part, WeightDelta]:
        """What becomes of each module, by a formula of ours; biases are changed in `whole`."""
        changes = {}
        for module, ends in self.layers.items():
            tensors = {end: self.state[name] for end, name in ends.items()}
            weight = self._rows(module).astype(np.float64)
            found = outcome(
                config["peft_type"], Layer(name=module, weight=weight, ends=tensors), config
            )
            changes[self._part(module)] = found.change
            bias = self._bias(module)
            if bias is not None and found.factor is not None:
                bias *= found.factor
            if found.added is not None and bias is not None:
                bias += found.added
            elif found.added is not None:
                raise AdapterError(f"{module} has no bias in this backbone, to which it would add")
        return changes

    def by_peft(self, config: Mapping[str, Any]) -> dict[Part, WeightDelta]:
        """The same, as PEFT merges it; what turns out to be of low rank becomes factors."""
        order = {name: i for i, name in enumerate(self.weights)}
        modules = sorted(
            self.layers,
            key=lambda m: (order[f"{self._part(m).name}.weight"], self._part(m).index),
        )
        biases = {module: self._bias(module) for module in modules}
        bare = {
            module: BareModule(
                self._rows(module), None if bias is None else bias.astype(np.float32)
            )
            for module, bias in biases.items()
        }
        own = {name for ends in self.layers.values() for name in ends.values()} | set(self.shared)
        merged = merged_by_peft(bare, config, {name: self.state[name] for name in sorted(own)})
        changes = {}
        for module, tensors in merged.items():
            old = bare[module].weight.astype(np.float64)
            whole = tensors["weight"].astype(np.float64) - old
            whole = whole.reshape(len(whole), -1)
            low_rank = low_rank_form(whole, float(np.abs(tensors["weight"]).max(initial=0.0)))
            changes[self._part(module)] = (
                WeightDelta(whole=whole) if low_rank is None else WeightDelta(low_rank=low_rank)
            )
            bias, before = biases[module], bare[module].bias
            if bias is not None and before is not None:
                bias += tensors["bias"].astype(np.float64) - before
        return changes


def _take_model(found: Foreign, state: Mapping[str, NDArray[Any]], spec: BackboneSpec) -> None:
    """What names tell of the model that was trained: how it pools, the epsilon of its norms.

    Raises:
        AdapterError: CLIP's head reads tokens that no norm has seen, and the backbone has one.
    """
    names = [name.removeprefix("base_model.model.") for name in state]
    for pattern, pool, norm_eps in _MODELS:
        if any(pattern.match(name) for name in names):
            found.pool, found.norm_eps = pool, norm_eps
            break
    if not any(_TOWER.match(name) for name in names):
        return
    found.pool = "avg"
    found.norm_eps = 1e-5 if spec.class_token else 1e-6  # CLIP's, SigLIP's
    if spec.class_token and spec.final_norm is not None and found.head:
        raise AdapterError(
            "CLIP's classifier of transformers reads the mean of tokens before the final norm, which "
            "no adapter can say; one that was trained on timm's CLIP can be imported"
        )
