"""The adapter file, format `vptkit.adapter/1` to `/4`: the tuned numbers and what they mean.

One safetensors file with one metadata key, `vptkit`, that holds canonical JSON; equal adapters are
equal bytes. Version 2 is what has weight deltas (`weight_deltas`) or learned keys and values
(`Adapter.learned_prefix`), version 3 what has a task (`multilabel`) and thresholds, version 4 what merges
tokens (`Adapter.merging`): what a reader of an earlier version would not know. All are read. What the numbers mean is in
`vptkit.tune.backbone.reference`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.backbones.merge_schedule import MERGE, TokenMerging, merge_problems
from vptkit.backbones.timm_arguments import require_timm_arguments, require_timm_name
from vptkit.errors import AdapterError, BackboneError
from vptkit.images.preprocess import Preprocess
from vptkit.paths.path_advice import advised
from vptkit.schema import (
    abridged,
    anything,
    choice,
    integer,
    list_of,
    mapping,
    null_or,
    record,
    require,
    text,
)
from vptkit.strict_json import canonical_json, parse_json

from .backbone_spec import BackboneSpec
from .backbone_weights import attention_branches, norm_shapes
from .manifest_schema import CLASSES, DIGEST, MULTILABEL, NAME, NOTES, PROMPTS, SINGLE, TASKS
from .pooling import POOLS, head_inputs, reads_class_token
from .tensor_file import parse_tensor_file, read_tensor_file, write_tensors
from .weight_deltas import delta_problems, delta_shapes, is_delta, weight_deltas

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vptkit.schema import Kind

    from .manifest_schema import Task
    from .pooling import Pool
    from .weight_deltas import WeightDelta

__all__ = [
    "FORMAT",
    "FORMAT_WITH_DELTAS",
    "FORMAT_WITH_MERGING",
    "FORMAT_WITH_TASK",
    "THRESHOLDS",
    "Adapter",
    "BackboneRef",
    "parse_adapter",
    "read_adapter",
    "require_backbone",
    "with_spec",
    "write_adapter",
]

FORMAT = "vptkit.adapter/1"
FORMAT_WITH_DELTAS = "vptkit.adapter/2"
FORMAT_WITH_TASK = "vptkit.adapter/3"
FORMAT_WITH_MERGING = "vptkit.adapter/4"
THRESHOLDS = "head.thresholds"
_FORMATS = (FORMAT, FORMAT_WITH_DELTAS, FORMAT_WITH_TASK, FORMAT_WITH_MERGING)
# Kinds of the fields; what they mean together is checked by `_validate` and by who reads them.
_FIELDS: Mapping[str, Kind] = {
    "format": choice(*_FORMATS),
    "name": NAME,
    "backbone": anything(values=10_000, depth=8, letters=1000),
    "method": text(200),
    "insert": NOTES,
    "prompt_length": integer(-1 << 31, PROMPTS),
    "pool": NOTES,
    "norm": NOTES,
    "labels": list_of(text(10_000), CLASSES),
    "preprocess": NOTES,
    "train": mapping(text(1000), NOTES, 10_000),
}
_FIELDS_OF = dict.fromkeys(_FORMATS, _FIELDS)
_FIELDS_OF[FORMAT_WITH_TASK] = {**_FIELDS, "task": choice(MULTILABEL)}
_FIELDS_OF[FORMAT_WITH_MERGING] = {**_FIELDS, "task": choice(*TASKS), "merge": MERGE}
_DOCUMENTS = {version: record(fields) for version, fields in _FIELDS_OF.items()}
_MOST_BYTES = 2**30  # of an adapter file; most have less than a thousandth of it
_TYPES_OF = {
    "golden.images": ("uint8",),
    "golden.logits": ("float32",),
    THRESHOLDS: ("float32",),
}
_MOST_BLOCKS = 512
_NORM = re.compile(  # all that `backbone_weights.norm_shapes` gives for any spec
    r"(?:norm|fc_norm|norm_pre|patch_embed\.norm|attn_pool\.norm"
    r"|blocks\.(?P<block>0|[1-9]\d{0,2})\."
    r"(?:norm[12]|in_norm|(?:attns|ffns)\.\d{1,2}\.norm|(?:attns\.\d{1,2}\.)?attn\.norm"
    r"|(?P<inner>(?:(?:attns\.\d{1,2}\.)?attn\.)?[qk]_norm|(?:ffns\.\d{1,2}\.)?mlp\.norm)))"
    r"\.(?:weight|bias)"
)
_LEARNED = re.compile(r"prefix\.(0|[1-9]\d{0,2})\.(keys|values)")
_PROMPT = re.compile(r"prompt\.(\d+)(\.[ab])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRef:
    """Which backbone an adapter was tuned on.

    Attributes:
        name, args: of `timm.create_model`, as far as `timm_arguments` allows them.
        spec: its description, or None if only timm can tell.
        sha256: digest of its weights (`backbone_weights.digest_of_weights`), or None if unknown.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    spec: BackboneSpec | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Check what timm would be called with.

        Raises:
            BackboneError: the name is not one of timm's, or an argument is not allowed.
        """
        require_timm_name(self.name)
        require_timm_arguments(self.args)

    def to_json(self) -> dict[str, Any]:
        """As the adapter file writes it."""
        spec = self.spec.to_json() if self.spec else None
        return {"name": self.name, "args": self.args, "spec": spec, "sha256": self.sha256}

    @classmethod
    def from_json(cls, document: Any) -> BackboneRef:
        """Read what `to_json` wrote.

        Raises:
            AdapterError: keys are missing or unknown, or a value is of another kind.
            BackboneError: the spec is not valid, or timm must not be called so.
        """
        if not isinstance(document, dict) or set(document) != {"name", "args", "spec", "sha256"}:
            raise AdapterError(
                f"backbone: expected name, args, spec and sha256, found {abridged(document)}"
            )
        spec, digest = document["spec"], document["sha256"]
        require(digest, null_or(DIGEST), "backbone", AdapterError, "sha256")
        return cls(
            name=document["name"],
            args=document["args"],
            spec=None if spec is None else BackboneSpec.from_json(spec),
            sha256=digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Tuned tensors and their description; see `design` in the README for the semantics.

    Attributes:
        name: short name.
        backbone: what it was tuned on.
        method: "bpt", "vpt", "ln", "linear" …: information, the tensors decide.
        insert: "deep" (fresh prompts at every block), "shallow" (once, before block 0), "none".
        prompt_length: m, 0 if insert is "none".
        pool, norm: what is pooled, and whether the final norm stands before or after.
        labels: C class names.
        preprocess: what to do to an image.
        train: how it was made, free form.
        tensors: `prompt.{i}` [m, d] or `prompt.{i}.a` [m, p] + `prompt.{i}.b` [d, p];
            `ln.{timm name}` [d]; `delta.…` and `scale.…` (see `weight_deltas`);
            `prefix.{i}.keys` and `.values` (see `learned_prefix`); `head.weight` [C, d] ([C, 2 d] with pool "token+avg", class
            token first), `head.bias` [C]; optionally `golden.images` uint8 [G, H, W, 3] and
            `golden.logits` float32 [G, C]. With task "multilabel", and only then, `head.thresholds`
            float32 [C], probabilities.
        task: "single": an image has one label, and the probabilities are a softmax over the logits.
            "multilabel": any number of labels, each with a probability of its own, the logistic
            function (sigmoid) of its logit. A temperature is in the head already, in both.
        merging: how the blocks merge tokens (ToMe), for which the rest was tuned; None: not at all.
    """

    name: str
    backbone: BackboneRef
    method: str
    insert: Literal["deep", "shallow", "none"]
    prompt_length: int
    pool: Pool
    norm: Literal["before_pool", "after_pool"]
    labels: tuple[str, ...]
    preprocess: Preprocess
    train: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    task: Task = SINGLE
    merging: TokenMerging | None = None

    @property
    def thresholds(self) -> NDArray[np.float32] | None:
        """Probability from which on each label is given, [C]; None of task "single"."""
        return self.tensors.get(THRESHOLDS)

    def without_prompts(self) -> Adapter:
        """The same adapter as a linear probe; a mean over prompts becomes one over patches.

        LayerNorms, weight deltas, learned keys and values and merging go too: what is left is the
        backbone and a head.
        """
        tensors = {
            name: value
            for name, value in self.tensors.items()
            if not name.startswith(("prompt.", "prefix.", "ln.", "golden.")) and not is_delta(name)
        }
        return replace(
            self,
            insert="none",
            prompt_length=0,
            pool="avg" if self.pool == "avg_prompts" else self.pool,
            tensors=tensors,
            merging=None,
        )

    def prompts(self, i: int) -> NDArray[np.float64]:
        """P_i as float64 [m, d]; bilinear factors are multiplied here (BPT, A Bᵀ)."""
        if f"prompt.{i}" in self.tensors:
            return np.asarray(self.tensors[f"prompt.{i}"], dtype=np.float64)
        a = np.asarray(self.tensors[f"prompt.{i}.a"], dtype=np.float64)
        b = np.asarray(self.tensors[f"prompt.{i}.b"], dtype=np.float64)
        return np.asarray(a @ b.T)

    def learned_prefix(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Learned keys and values [n, h e] that the attention of block i has beside those of its tokens.

        As softmax meets them, head beside head: keys behind any norm, rotation and bias of their own,
        not scaled. None where the block has none (E²VPT, Han et al. 2023).
        """
        if f"prefix.{i}.keys" not in self.tensors:
            return None
        keys, values = (self.tensors[f"prefix.{i}.{kind}"] for kind in ("keys", "values"))
        return np.asarray(keys, dtype=np.float64), np.asarray(values, dtype=np.float64)

    def learned_counts(self) -> dict[int, int]:
        """Block → how many learned keys it has; blocks without are left out."""
        found = {m[1]: value for k, value in self.tensors.items() if (m := _LEARNED.fullmatch(k))}
        return {int(i): len(found[i]) for i in sorted(found, key=int)}

    def layer_norms(self) -> dict[str, NDArray[Any]]:
        """Tuned LayerNorm parameters by timm name."""
        return {k[3:]: v for k, v in self.tensors.items() if k.startswith("ln.")}

    def weight_deltas(self) -> dict[str, WeightDelta]:
        """How tensors of the backbone are changed, by timm name (norms: `layer_norms`)."""
        return weight_deltas(self.tensors)

    @property
    def format(self) -> str:
        """Of the file: the first version that knows all that is in it."""
        if self.merging is not None:
            return FORMAT_WITH_MERGING
        if self.task != SINGLE:
            return FORMAT_WITH_TASK
        return FORMAT_WITH_DELTAS if any(map(_is_of_version_2, self.tensors)) else FORMAT

    def weights_origin(self) -> str | None:
        """What is noted of the backbone's weights, as "model.safetensors (sha256 029e07…)"."""
        noted = self.train.get("weights")
        if not isinstance(noted, dict):
            return None
        file, digest, hub = (noted.get(key) for key in ("file", "sha256", "hub"))
        if isinstance(file, str):
            return f"{file} (sha256 {str(digest)[:12]}…)"
        return f"the hub's {hub}" if isinstance(hub, str) else None

    def golden(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """(images, logits) of the reference, if the file carries them."""
        if "golden.images" not in self.tensors:
            return None
        return self.tensors["golden.images"], self.tensors["golden.logits"]

    def to_json(self) -> dict[str, Any]:
        """The metadata document."""
        later: dict[str, Any] = {} if self.task == SINGLE else {"task": self.task}
        if self.merging is not None:
            later = {"task": self.task, "merge": self.merging.to_json()}
        return {
            **later,
            "format": self.format,
            "name": self.name,
            "backbone": self.backbone.to_json(),
            "method": self.method,
            "insert": self.insert,
            "prompt_length": self.prompt_length,
            "pool": self.pool,
            "norm": self.norm,
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_json(),
            "train": self.train,
        }


def write_adapter(path: Path, adapter: Adapter) -> None:
    """Write an adapter file atomically; equal adapters give equal bytes.

    Raises:
        AdapterError: the adapter is not consistent (checked as on reading).
        OutputError: the disk is full or not writable.
    """
    document = adapter.to_json()
    require(document, _DOCUMENTS[adapter.format], path, AdapterError)
    _validate(str(path), adapter)
    write_tensors(path, adapter.tensors, ("vptkit", canonical_json(document)))


def read_adapter(path: Path) -> Adapter:
    """Read and check an adapter file.

    Raises:
        AdapterError: missing, truncated or another kind of file; unknown format or field; missing,
            unknown or misshapen tensors; NaN or Inf.
    """
    with advised(path, "adapter", AdapterError):
        metadata, tensors = read_tensor_file(path, AdapterError, limit=_MOST_BYTES)
        text = _document_of(path, metadata)
    return _adapter_of(path, text, tensors)


def parse_adapter(content: bytes, source: Path) -> Adapter:
    """Check an adapter file that was read; see `read_adapter`."""
    metadata, tensors = parse_tensor_file(content, source, AdapterError)
    return _adapter_of(source, _document_of(source, metadata), tensors)


def _document_of(source: Path, metadata: Mapping[str, str]) -> str:
    text = metadata.get("vptkit")
    if text is None:
        raise AdapterError(
            f"{source}: no vptkit metadata: not an adapter file. Expected the output of vptkit tune."
        )
    return text


def _adapter_of(source: Path, text: str, tensors: dict[str, NDArray[Any]]) -> Adapter:
    malformed = f"{source}: malformed metadata"
    document = parse_json(text, f"{malformed}, expected the format {FORMAT!r}", AdapterError)
    _require_fields(document, source)
    require(document, _DOCUMENTS[document["format"]], malformed, AdapterError)
    try:
        adapter = _adapter_from_json(document, tensors)
    except (AdapterError, BackboneError) as error:
        raise AdapterError(f"{source}: {error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise AdapterError(f"{malformed}: {error!r}") from error
    if adapter.format != document["format"] == FORMAT:
        raise AdapterError(
            f"{source}: format is {FORMAT!r}, which has no weight deltas and no learned keys, but "
            f"there is {min(filter(_is_of_version_2, tensors))}. Expected {FORMAT_WITH_DELTAS!r}."
        )
    document = {**document, "format": adapter.format}  # versions above 1 may have none
    if adapter.to_json() != document:  # a value of another kind than it should be
        odd = [key for key, value in adapter.to_json().items() if value != document[key]]
        raise AdapterError(f"{malformed}: {odd[0]} is {abridged(document[odd[0]])}")
    _validate(str(source), adapter)
    return adapter


def with_spec(adapter: Adapter, spec: BackboneSpec) -> Adapter:
    """The adapter with the description that its backbone turned out to have, and checked by it.

    Raises:
        AdapterError: tensors or fields do not fit this backbone.
    """
    described = replace(adapter, backbone=replace(adapter.backbone, spec=spec))
    _validate(f"adapter {adapter.name!r} on {adapter.backbone.name}", described)
    return described


def _require_fields(document: dict[str, Any], source: object) -> None:
    found = document.get("format")
    if found not in _FORMATS:
        raise AdapterError(
            f"{source}: format is {abridged(found)}, this vptkit reads {', '.join(_FORMATS)}"
        )
    fields = _FIELDS_OF[found]
    if set(document) != set(fields):
        raise AdapterError(
            f"{source}: metadata misses {sorted(set(fields) - set(document))} and has unknown "
            f"{sorted(set(document) - set(fields))[:20]}"
        )


def _adapter_from_json(document: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Adapter:
    return Adapter(
        name=str(document["name"]),
        backbone=BackboneRef.from_json(document["backbone"]),
        method=str(document["method"]),
        insert=document["insert"],
        prompt_length=int(document["prompt_length"]),
        pool=document["pool"],
        norm=document["norm"],
        labels=tuple(str(label) for label in document["labels"]),
        preprocess=Preprocess.from_json(document["preprocess"]),
        train=dict(document["train"]),
        tensors=tensors,
        task=document.get("task", SINGLE),
        merging=_merging_of(document),
    )


def _merging_of(document: Mapping[str, Any]) -> TokenMerging | None:
    merge = document.get("merge")
    return None if merge is None else TokenMerging.from_json(merge, "metadata", AdapterError)


def _validate(where: str, adapter: Adapter) -> None:
    problems = [*_field_problems(adapter), *_tensor_problems(adapter)]
    if problems:
        raise AdapterError(f"{where}: " + "; ".join(problems[:5]))


def _field_problems(adapter: Adapter) -> list[str]:
    problems = []
    if adapter.insert not in ("deep", "shallow", "none"):
        problems.append(f"insert is {adapter.insert!r}, expected deep, shallow or none")
    if adapter.pool not in POOLS:
        problems.append(f"pool is {adapter.pool!r}, expected one of {', '.join(POOLS)}")
    if adapter.norm not in ("before_pool", "after_pool"):
        problems.append(f"norm is {adapter.norm!r}, expected before_pool or after_pool")
    if (adapter.insert == "none") != (adapter.prompt_length == 0) or adapter.prompt_length < 0:
        problems.append(
            f"insert {adapter.insert!r} does not go with prompt_length {adapter.prompt_length}"
        )
    spec = adapter.backbone.spec
    if spec is not None and spec.image_size != adapter.preprocess.size:
        problems.append(
            f"preprocess makes images of {adapter.preprocess.size}, the backbone takes "
            f"{spec.image_size}"
        )
    if spec is not None and reads_class_token(adapter.pool) and not spec.class_token:
        problems.append(f"pool is {adapter.pool!r}, but the backbone has no class token")
    if spec is not None and adapter.pool == "map" and spec.attention_pool is None:
        problems.append("pool is 'map', but the backbone has no attention pooling")
    problems += _merging_problems(adapter)
    fewest, told = (2, "two different names") if adapter.task == SINGLE else (1, "one, each once")
    if len(set(adapter.labels)) != len(adapter.labels) or len(adapter.labels) < fewest:
        problems.append(f"labels must be at least {told}, found {adapter.labels}")
    return problems


def _merging_problems(adapter: Adapter) -> list[str]:
    """What a schedule says that the backbone, or the shape of the adapter, cannot."""
    merging, spec = adapter.merging, adapter.backbone.spec
    if merging is None:
        return []
    if not merging.merged:
        return ["merge has a schedule that merges nothing: such an adapter has no merge"]
    if spec is not None:
        return merge_problems(merging, spec)
    blocks = len(_prompt_sites(adapter)) if adapter.insert == "deep" else len(merging.schedule)
    found = len(merging.schedule)
    return [] if found == blocks else [f"merge has {found} numbers, expected one a block: {blocks}"]


def _tensor_problems(adapter: Adapter) -> list[str]:
    tensors = adapter.tensors
    if odd := _odd_types(tensors):
        return odd
    if "head.weight" not in tensors or tensors["head.weight"].ndim != 2:
        return ["head.weight [C, d] is missing or not a matrix"]
    width = int(tensors["head.weight"].shape[1])
    spec = adapter.backbone.spec
    d = spec.width if spec is not None else width // head_inputs(adapter.pool, 1)
    if width != head_inputs(adapter.pool, d):
        return [f"head.weight is {width} wide, {_wanted(adapter, d)}"]
    expected = _expected_shapes(adapter, d)
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(tensors))]
    unknown = set(tensors) - set(expected)
    reasons = delta_problems(tensors, spec, unknown=unknown)
    reasons |= {name: _learned_problem(name, spec) for name in unknown if _LEARNED.fullmatch(name)}
    reasons |= {
        THRESHOLDS: f"{THRESHOLDS} is for task {MULTILABEL!r}, and this is {adapter.task!r}"
    }
    problems += [reasons.get(name, f"{name} is not known") for name in sorted(unknown)]
    for name in sorted(set(expected) & set(tensors)):
        value, shape = tensors[name], expected[name]
        fits = value.ndim == len(shape) and all(
            n in (-1, m) for n, m in zip(shape, value.shape, strict=True)
        )
        if not fits:
            problems.append(f"{name} has the shape {value.shape}, expected {shape}")
        elif value.dtype != np.uint8 and not np.isfinite(value).all():
            problems.append(f"{name} holds NaN or Inf")
        elif name == THRESHOLDS and not ((value > 0) & (value < 1)).all():
            odd = value[~((value > 0) & (value < 1))][0]
            problems.append(f"{name} holds {odd:g}, expected probabilities between 0 and 1")
    return problems


def _wanted(adapter: Adapter, d: int) -> str:
    """How wide the head's weight should be, in words."""
    if adapter.backbone.spec is None:
        return f"and pool {adapter.pool!r} gives 2 d numbers: an even width is expected"
    wanted = head_inputs(adapter.pool, d)
    by = "" if wanted == d else f" with pool {adapter.pool!r}"
    return f"the backbone {adapter.backbone.name} {wanted}{by}"


def _odd_types(tensors: Mapping[str, NDArray[Any]]) -> list[str]:
    """Whatever is computed with is floating point; golden images are bytes, their logits float32."""
    problems = []
    for name, value in tensors.items():
        allowed = _TYPES_OF.get(name, ("float16", "float32", "float64"))
        if not value.size:  # whatever its other dimensions say
            problems.append(f"{name} has the shape {value.shape}, which holds no number")
        elif value.dtype.name not in allowed:
            problems.append(f"{name} is of {value.dtype.name}, expected {' or '.join(allowed)}")
    return problems


def _expected_shapes(adapter: Adapter, d: int) -> dict[str, tuple[int, ...]]:
    """Name → shape; -1 stands for any size."""
    tensors, m, c = adapter.tensors, adapter.prompt_length, len(adapter.labels)
    inputs = head_inputs(adapter.pool, d)
    shapes: dict[str, tuple[int, ...]] = {"head.weight": (c, inputs), "head.bias": (c,)}
    if adapter.task == MULTILABEL:
        shapes[THRESHOLDS] = (c,)
    for i in _prompt_sites(adapter):
        if f"prompt.{i}.a" in tensors or f"prompt.{i}.b" in tensors:
            a = tensors.get(f"prompt.{i}.a")
            rank = a.shape[1] if a is not None and a.ndim == 2 else -1
            shapes[f"prompt.{i}.a"], shapes[f"prompt.{i}.b"] = (m, rank), (d, rank)
        else:
            shapes[f"prompt.{i}"] = (m, d)
    spec = adapter.backbone.spec
    tuned = adapter.layer_norms()
    norms = norm_shapes(spec) if spec else _plausible_norms(adapter, d)
    shapes |= {f"ln.{name}": norms[name] for name in tuned if name in norms}
    shapes |= delta_shapes(tensors, spec, _blocks(adapter)) | _learned_shapes(adapter)
    if any(name.startswith("golden.") for name in tensors):
        images = tensors.get("golden.images")
        count = images.shape[0] if images is not None and images.ndim == 4 else -1
        shapes["golden.images"] = (count, *adapter.preprocess.size, 3)
        shapes["golden.logits"] = (count, c)
    return shapes


def _is_of_version_2(name: str) -> bool:
    return is_delta(name) or name.startswith("prefix.")


def _learned_shapes(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Of learned keys and values: as many of one as of the other, each as wide as the block's own."""
    spec = adapter.backbone.spec
    shapes: dict[str, tuple[int, ...]] = {}
    for name in adapter.tensors:
        match = _LEARNED.fullmatch(name)
        i = int(match[1]) if match else _MOST_BLOCKS
        if i >= (_blocks(adapter) if spec is None else spec.depth):
            continue
        if spec is not None and len(attention_branches(spec, i)) > 1:
            continue
        width = -1 if spec is None else spec.key_heads(i) * spec.head_width
        keys = adapter.tensors.get(f"prefix.{i}.keys")
        count = keys.shape[0] if keys is not None and keys.ndim == 2 else -1
        shapes |= {f"prefix.{i}.{kind}": (count, width) for kind in ("keys", "values")}
    return shapes


def _learned_problem(name: str, spec: BackboneSpec | None) -> str:
    """Why learned keys or values of a block are not known."""
    if spec is not None and int(name.split(".")[1]) < spec.depth:
        return (
            f"{name}: a block of this backbone has several attentions; which is meant is not known"
        )
    return f"{name} is not known: the backbone has no such block"


def _plausible_norms(adapter: Adapter, d: int) -> dict[str, tuple[int, ...]]:
    """Without a spec: norms as timm names them, of blocks that the prompts know of."""
    blocks = _blocks(adapter)
    found: dict[str, tuple[int, ...]] = {}
    for name in adapter.layer_norms():
        match = _NORM.fullmatch(name)
        if match and (match["block"] is None or int(match["block"]) < blocks):
            narrow = match["inner"] is not None  # of a head, or of the MLP's width
            found[name] = (-1,) if narrow else (d,)
    return found


def _blocks(adapter: Adapter) -> int:
    """L; without a spec as many as the prompts know of, or may be."""
    return len(_prompt_sites(adapter)) if adapter.insert == "deep" else _MOST_BLOCKS


def _prompt_sites(adapter: Adapter) -> range:
    if adapter.insert == "none":
        return range(0)
    if adapter.insert == "shallow":
        return range(1)
    if adapter.backbone.spec is not None:
        return range(adapter.backbone.spec.depth)
    numbers = {m.group(1) for name in adapter.tensors if (m := _PROMPT.fullmatch(name))}
    return range(max(len(numbers), 1))  # any other number than these is refused as unknown


_WEIGHTS = "Pass --weights with the file that was used for tuning."


def require_backbone(
    reference: BackboneRef, digest: str, source: object, *, remedy: str = _WEIGHTS
) -> None:
    """Refuse weights that are not those an adapter was tuned on.

    Args:
        reference: what the adapter names.
        digest: `digest_of_weights` of the weights at hand.
        source: where those came from, for the message.
        remedy: a sentence for the message.

    Raises:
        BackboneError: the digests differ.
    """
    if reference.sha256 not in (None, digest):
        raise BackboneError(
            f"{source}: another backbone than the one that was tuned: digest {digest[:12]}…, the "
            f"adapter wants {str(reference.sha256)[:12]}… ({reference.name}). {remedy}"
        )
