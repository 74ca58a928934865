"""The bank layout: one graph, and the adapters of a batch looked up in tables.

The tables are inputs of the graph. With A adapters, L blocks, T tokens, S LayerNorms and, fixed when
the graph is written, m prompts and C classes at most:

bank.prompts       [A L, m, d]      prompt rows behind LayerNorm 1 (block i of adapter a: a L + i)
bank.mask          [A, 1, 1, T+m]   added to attention logits: 0, or MASKED for rows that only pad
bank.norm_weight   [A S, d]         tuned LayerNorms (only if the bank has room for them)
bank.norm_bias     [A S, d]
bank.head_weight   [A, f, C]        the final norm's affine is folded in; f is d, or 2 d (`pooling`)
bank.head_bias     [A, C]
bank.feature_weight, bank.feature_bias [A, f]   the final norm's affine, if the bank gives features; then
                                  it is not in the head

For each linear of a block that some adapter changes (`bank_linears` has their names, as
blocks.3.attn.q), y = ((x · in) W + ((x · in) a) b) · out + bias, and of these tables those that are
needed; with r the largest rank of an adapter in this linear:

bank.{linear}.a    [A, in, r]       the attention scale and LayerScale are folded into b and bias
bank.{linear}.b    [A, r, out]
bank.{linear}.in   [A, in]
bank.{linear}.out  [A, out]
bank.{linear}.bias [A, out]         what is added to the backbone's own

On disk each adapter is one small file `adapters/NAME-DIGEST.safetensors` with its own rows, not
padded, so that adding one neither rewrites nor reads the others.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from vptkit.atomic_files import atomic_file
from vptkit.errors import BundleError

from .manifest_schema import ADAPTERS, FEATURES
from .pooling import head_inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .backbone_spec import BackboneSpec

__all__ = [
    "MASKED",
    "NORMS",
    "AdapterRows",
    "BankLinear",
    "BankShape",
    "LinearRoom",
    "bank_linears",
    "kept_norms",
    "keys_have_bias",
    "norm_slots",
    "open_norms",
    "parse_rows",
    "write_rows",
]

NORMS = "norms.safetensors"  # the backbone's own: whoever adds an adapter needs them
# Exact in float16, bfloat16 and float32. Attention logits are some hundreds at most, so exp of the
# sum is 0 in each of them; and twice this is not yet -inf in bfloat16 or float32.
MASKED = -32768.0
_DIGEST_LETTERS = 8
_LINEARS = "linears."  # begin the names of their rows in a file
_TABLE = re.compile(r"bank\.(blocks\..+)\.(a|b|in|out|bias)")
_ROW_NUMBERS = 1 << 28  # that one adapter takes in the tables, at most


def norm_slots(spec: BackboneSpec) -> tuple[str, ...]:
    """Timm names of the S LayerNorms that differ between adapters, in the order of their rows.

    The final norm is not among them: its affine is folded into each head.
    """
    pre = ("norm_pre",) if spec.norm_pre else ()
    blocks = (f"blocks.{i}.norm{n}" for i in range(spec.depth) for n in (1, 2))
    return (*pre, *blocks)


class BankLinear(NamedTuple):
    """A linear of a bank's graph: which part of which timm tensors it is.

    Attributes:
        weight, start, stop: rows of a timm tensor [rows, inputs].
        biases: timm tensors that are added, each with its first and last row.
        inputs: the width of a row.
        norm: the norm whose affine stands between x̂ and this linear, as the graph and as timm name
            it; None if there is none.
        scale: timm's LayerScale behind it, or None.
        kind: what it does; keys' biases count only where `keys_have_bias`.
    """

    weight: str
    start: int
    stop: int
    biases: tuple[tuple[str, int, int], ...]
    inputs: int
    norm: tuple[str, str] | None
    scale: str | None
    kind: Literal["q", "k", "v", "proj", "fc1", "gate", "fc2"]

    @property
    def outputs(self) -> int:
        """The width of what comes out."""
        return self.stop - self.start


@cache
def bank_linears(spec: BackboneSpec) -> dict[str, BankLinear]:
    """The linears of a bank's graph that an adapter may change, by their names in the graph.

    Of blocks with several branches none: those share rows whose affine differs from one to the next.
    """
    # Whoever asks for the shape of a bank without weight deltas may lack safetensors.
    from .backbone_weights import tensor_shapes

    found: dict[str, BankLinear] = {}
    if spec.block == "branches":
        return found
    known = tensor_shapes(spec)
    for i in range(spec.depth):
        parts = _joint_block(spec, i) if spec.block == "parallel" else _block(spec, i)
        for name, linear in parts.items():
            biases = tuple(bias for bias in linear.biases if bias[0] in known)
            found[f"blocks.{i}.{name}"] = linear._replace(biases=biases)
    return found


def _block(spec: BackboneSpec, i: int) -> dict[str, BankLinear]:
    from .backbone_weights import attention_branches, mlp_branches

    (attention,), (mlp,) = attention_branches(spec, i), mlp_branches(spec, i)
    name, d, hidden = f"blocks.{i}", spec.width, spec.mlp_width
    kv = spec.key_heads(i) * spec.head_width
    before = None if spec.block == "post" else (f"{name}.norm1", attention.norm)
    inner = (f"{name}.attn.norm", f"{attention.module}.norm") if spec.attention_norm else None
    found: dict[str, BankLinear] = {}
    places: dict[Literal["q", "k", "v"], tuple[int, int]]
    places = {"q": (0, d), "k": (d, d + kv), "v": (d + kv, d + 2 * kv)}
    for kind, (first, end) in places.items():
        apart = spec.qkv == "separate"
        module = f"{attention.module}.{kind}_proj" if apart else f"{attention.module}.qkv"
        start, stop = (0, end - first) if apart else (first, end)
        own = (f"{attention.module}.{kind}_bias", 0, stop - start)  # BEiT's
        biases = ((f"{module}.bias", start, stop), own)
        found[f"attn.{kind}"] = BankLinear(
            f"{module}.weight", start, stop, biases, d, before, None, kind
        )
    found["attn.proj"] = _whole(f"{attention.module}.proj", d, d, inner, attention.scale, "proj")
    before = None if spec.block == "post" else (f"{name}.norm2", mlp.norm)
    inner = (f"{name}.mlp.norm", f"{mlp.module}.norm") if spec.mlp_norm else None
    if spec.mlp == "swiglu":
        for module, part in (("fc1_g", "gate"), ("fc1_x", "fc1")):
            linear = _whole(f"{mlp.module}.{module}", hidden, d, before, None, "fc1")
            found[f"mlp.{part}"] = linear
    else:
        joint = _whole(f"{mlp.module}.fc1", hidden, d, before, None, "fc1")
        found["mlp.fc1"] = joint
        if spec.mlp == "glu":
            found["mlp.gate"] = joint
            found["mlp.fc1"] = _moved(joint, hidden)
    found["mlp.fc2"] = _whole(f"{mlp.module}.fc2", d, hidden, inner, mlp.scale, "fc2")
    return found


def _joint_block(spec: BackboneSpec, i: int) -> dict[str, BankLinear]:
    """ViT-22B: the MLP's hidden rows, queries, keys and values are one linear of one norm."""
    name, d, hidden = f"blocks.{i}", spec.width, spec.mlp_width
    before, scale = (f"{name}.norm1", f"{name}.in_norm"), f"{name}.ls.gamma"
    joint = _whole(f"{name}.in_proj", hidden, d, before, None, "fc1")
    found = {"mlp.fc1": joint._replace(biases=(*joint.biases, (f"{name}.mlp_bias", 0, hidden)))}
    kinds: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")
    for n, kind in enumerate(kinds):
        rows = _moved(joint._replace(stop=d), hidden + n * d)
        bias = (f"{name}.in_proj.bias", rows.start, rows.stop)
        found[f"attn.{kind}"] = rows._replace(biases=(bias,), kind=kind)
    own = scale if spec.layer_scale else None
    found["attn.proj"] = _whole(f"{name}.attn_out_proj", d, d, None, own, "proj")
    found["mlp.fc2"] = _whole(f"{name}.mlp_out_proj", d, hidden, None, own, "fc2")
    return found


def _whole(
    module: str,
    rows: int,
    inputs: int,
    norm: tuple[str, str] | None,
    scale: str | None,
    kind: Literal["proj", "fc1", "gate", "fc2"],
) -> BankLinear:
    bias = ((f"{module}.bias", 0, rows),)
    return BankLinear(f"{module}.weight", 0, rows, bias, inputs, norm, scale, kind)


def _moved(linear: BankLinear, rows: int) -> BankLinear:
    """As many rows, further down in the same tensors."""
    biases = tuple((name, start + rows, stop + rows) for name, start, stop in linear.biases)
    return linear._replace(start=linear.start + rows, stop=linear.stop + rows, biases=biases)


def keys_have_bias(spec: BackboneSpec) -> bool:
    """Whether a shift of keys changes an answer: not if all keys share it (`fold_block`)."""
    return spec.qk_norm or spec.rotary is not None


def open_norms(spec: BackboneSpec, linears: Collection[str]) -> dict[str, str]:
    """Norms whose affine a bank leaves in its graph, as a changed linear needs the rows behind it.

    Args:
        spec: the backbone.
        linears: those that have tables.

    Returns:
        Name in the graph → timm's.
    """
    known = bank_linears(spec)
    return dict(norm for name in linears if (norm := known[name].norm) is not None)


def kept_norms(
    spec: BackboneSpec,
    tensors: Mapping[str, Any],
    *,
    layer_norms: bool,
    linears: Collection[str] = (),
) -> dict[str, Any]:
    """Of tensors by timm name those that a bank keeps of its backbone (NORMS), for further adapters.

    Args:
        spec: the backbone.
        tensors: by timm name; arrays, or their shapes.
        layer_norms: an adapter may bring tuned LayerNorms. Without, only the final norm is kept, and
            those before the keys of a block where a linear can change: prompts stand behind them.
        linears: those that have tables; LayerScale behind them is kept.
    """
    opened = open_norms(spec, linears)
    before = {timm for graph, timm in opened.items() if graph.endswith(".norm1")}
    names = {*(norm_slots(spec) if layer_norms else ()), *before, spec.final_norm}
    scales = {bank_linears(spec)[name].scale for name in linears}
    return {
        name: tensors[name]
        for name in tensors
        if name.rpartition(".")[0] in names or name in scales
    }


class LinearRoom(NamedTuple):
    """What a bank has room for in one linear: rank r, or 0; and which other tables it has."""

    inputs: int
    outputs: int
    rank: int = 0
    in_scale: bool = False
    out_scale: bool = False
    bias: bool = False

    def tables(self) -> dict[str, tuple[int, ...]]:
        """Ending of a table's name → shape of a row."""
        factors = {"a": (self.inputs, self.rank), "b": (self.rank, self.outputs)}
        others = {
            "in": (self.inputs,) if self.in_scale else None,
            "out": (self.outputs,) if self.out_scale else None,
            "bias": (self.outputs,) if self.bias else None,
        }
        found: dict[str, tuple[int, ...]] = {**factors} if self.rank else {}
        return found | {name: row for name, row in others.items() if row is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class BankShape:
    """What a bank has room for; all but the number of adapters is fixed in the graph.

    Attributes:
        depth, width, tokens: L, d and T of the backbone.
        features: f, how many numbers a head takes.
        prompts: m, the most prompts of an adapter; 0 if none can have any.
        classes: C, the most classes of an adapter.
        norms: S, or 0 if no adapter can bring tuned LayerNorms.
        feature_norm: the final norm's affine has tables, because the graph gives what is behind it.
        linears: those of the blocks that an adapter can change, by name (`bank_linears`).
    """

    depth: int
    width: int
    tokens: int
    features: int
    prompts: int
    classes: int
    norms: int
    feature_norm: bool = False
    linears: Mapping[str, LinearRoom] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        spec: BackboneSpec,
        *,
        pool: str,
        prompts: int,
        classes: int,
        layer_norms: bool,
        feature_norm: bool = False,
        linears: Mapping[str, LinearRoom] | None = None,
    ) -> BankShape:
        """For a backbone and the pool that all adapters share."""
        return cls(
            depth=spec.depth,
            width=spec.width,
            tokens=spec.tokens,
            features=head_inputs(pool, spec.width),
            prompts=prompts,
            classes=classes,
            norms=len(norm_slots(spec)) if layer_norms else 0,
            feature_norm=feature_norm,
            linears=linears or {},
        )

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any], spec: BackboneSpec) -> BankShape:
        """Read off the inputs, outputs and adapters that a manifest lists.

        Raises:
            BundleError: they are not those of a bank.
        """
        try:
            shapes = {value["name"]: value["shape"] for value in manifest["inputs"]}
            pools = sorted({entry["pool"] for entry in manifest["adapters"]})
            shape = cls.of(
                spec,
                pool=pools[0],
                prompts=int(shapes["bank.prompts"][1]) if "bank.prompts" in shapes else 0,
                classes=int(shapes["bank.head_bias"][1]),
                layer_norms="bank.norm_weight" in shapes,
                feature_norm="bank.feature_weight" in shapes,
                linears=_rooms(spec, shapes),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BundleError(
                f"the manifest's inputs are not those of a bank: {error!r}"
            ) from error
        if len(pools) > 1:
            raise BundleError(f"the manifest's adapters pool differently: {', '.join(pools)}")
        listed = {name: list(dims) for name, dims in shapes.items() if name.startswith("bank.")}
        if listed != {name: list(dims) for name, dims in shape.signature().items()}:
            raise BundleError(f"the manifest's inputs are not those of a bank: {listed}")
        given = {value["name"]: value["shape"][-1] for value in manifest.get("outputs", ())}
        if given.get(FEATURES, shape.features) != shape.features:
            raise BundleError(
                f"the manifest's features have {given[FEATURES]} numbers, a head of this bank reads "
                f"{shape.features}"
            )
        numbers = sum(count * math.prod(row) for count, row in shape.rows().values())
        if numbers > _ROW_NUMBERS:
            raise BundleError(
                f"the manifest's bank has {numbers} numbers for each adapter, at most "
                f"{_ROW_NUMBERS} are possible"
            )
        return shape

    def rows(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Table → rows that one adapter takes in it, and the shape of a row."""
        tables: dict[str, tuple[int, tuple[int, ...]]] = {}
        if self.prompts:
            tables["bank.prompts"] = (self.depth, (self.prompts, self.width))
            tables["bank.mask"] = (1, (1, 1, self.tokens + self.prompts))
        if self.norms:
            tables["bank.norm_weight"] = (self.norms, (self.width,))
            tables["bank.norm_bias"] = (self.norms, (self.width,))
        for name, room in self.linears.items():
            for part, row in room.tables().items():
                tables[f"bank.{name}.{part}"] = (1, row)
        if self.feature_norm:
            tables["bank.feature_weight"] = (1, (self.features,))
            tables["bank.feature_bias"] = (1, (self.features,))
        tables["bank.head_weight"] = (1, (self.features, self.classes))
        tables["bank.head_bias"] = (1, (self.classes,))
        return tables

    def signature(self) -> dict[str, tuple[int | str, ...]]:
        """Table → shape as graph and manifest write it; the first dimension is free."""
        free = {1: "adapters", self.depth: "adapters_blocks", self.norms: "adapters_norms"}
        return {
            name: ("adapters" if rows == 1 else free[rows], *row)
            for name, (rows, row) in self.rows().items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRows:
    """One adapter's part of the tables, float32, not padded.

    Attributes:
        prompts: [L, m, d], or None if the adapter has no prompts.
        norm_weight, norm_bias: [S, d] each, or None in a bank without LayerNorms.
        head_weight: [f, C].
        head_bias: [C].
        feature_weight, feature_bias: [f] each, or None in a bank without tables of them.
        linears: `{linear}.a` [in, r], `.b` [r, out], `.in`, `.out`, `.bias`: those that it changes.
        golden: the reference's own answers, uint8 [G, H, W, 3] and float32 [G, C], or None.
    """

    prompts: NDArray[np.float32] | None
    norm_weight: NDArray[np.float32] | None
    norm_bias: NDArray[np.float32] | None
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    feature_weight: NDArray[np.float32] | None = None
    feature_bias: NDArray[np.float32] | None = None
    linears: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    golden: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = field(default=None, repr=False)

    def fill(self, shape: BankShape, tables: Mapping[str, NDArray[Any]], slot: int) -> None:
        """Write the rows into place number `slot` of padded tables (see the module)."""
        if shape.prompts:
            m = 0 if self.prompts is None else self.prompts.shape[1]
            place = tables["bank.prompts"][slot * shape.depth : (slot + 1) * shape.depth]
            place[:, m:] = 0
            if self.prompts is not None:
                place[:, :m] = self.prompts
            tables["bank.mask"][slot, ..., : shape.tokens + m] = 0
            tables["bank.mask"][slot, ..., shape.tokens + m :] = MASKED
        if self.norm_weight is not None and self.norm_bias is not None:
            rows = slice(slot * shape.norms, (slot + 1) * shape.norms)
            tables["bank.norm_weight"][rows] = self.norm_weight
            tables["bank.norm_bias"][rows] = self.norm_bias
        if self.feature_weight is not None and self.feature_bias is not None:
            tables["bank.feature_weight"][slot] = self.feature_weight
            tables["bank.feature_bias"][slot] = self.feature_bias
        self._fill_linears(shape, tables, slot)
        classes = len(self.head_bias)
        for name, value in (("head_weight", self.head_weight), ("head_bias", self.head_bias)):
            tables[f"bank.{name}"][slot, ..., :classes] = value
            tables[f"bank.{name}"][slot, ..., classes:] = 0

    def _fill_linears(self, shape: BankShape, tables: Mapping[str, Any], slot: int) -> None:
        """Factors padded with zeros; where the adapter changes nothing, what changes nothing."""
        for name, room in shape.linears.items():
            for part in room.tables():
                place = tables[f"bank.{name}.{part}"][slot]
                place[...] = 1 if part in ("in", "out") else 0
                value = self.linears.get(f"{name}.{part}")
                if value is not None:
                    place[tuple(map(slice, value.shape))] = value


def write_rows(folder: Path, name: str, rows: AdapterRows) -> tuple[str, str]:
    """Write the file of one adapter into a bundle, atomically; equal rows give equal bytes.

    Args:
        folder: the bundle.
        name: of the adapter; letters that a file name should not have become "_".
        rows: what to write.

    Returns:
        The file's name within the bundle, and its SHA-256, the first letters of which are in the
        name: a file never changes, it is only written and removed.

    Raises:
        OutputError: the disk is full or not writable.
    """
    parts = {
        "prompts": rows.prompts,
        "norm_weight": rows.norm_weight,
        "norm_bias": rows.norm_bias,
        "head_weight": rows.head_weight,
        "head_bias": rows.head_bias,
        "feature_weight": rows.feature_weight,
        "feature_bias": rows.feature_bias,
        **{f"{_LINEARS}{key}": value for key, value in rows.linears.items()},
        "golden.images": None if rows.golden is None else rows.golden[0],
        "golden.logits": None if rows.golden is None else rows.golden[1],
    }
    present = {k: np.ascontiguousarray(v) for k, v in parts.items() if v is not None}
    # Those who only ask for the shape of a bank may lack safetensors.
    from safetensors.numpy import save

    content = save(present)
    digest = hashlib.sha256(content).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".")[:64] or "adapter"
    file = f"{ADAPTERS}/{readable}-{digest[:_DIGEST_LETTERS]}.safetensors"
    (folder / ADAPTERS).mkdir(exist_ok=True)
    with atomic_file(folder / file) as part:
        part.write_bytes(content)
    return file, digest


def parse_rows(content: bytes, path: Path, shape: BankShape) -> AdapterRows:
    """What the file of one adapter holds.

    Args:
        content: of the file, as the manifest lists it.
        path: of the file, for messages.
        shape: of the bank; the rows must fit.

    Raises:
        BundleError: it is not of this bank.
    """
    from .tensor_file import parse_tensor_file

    found = parse_tensor_file(content, path, BundleError)[1]
    golden = "golden.images" in found and "golden.logits" in found
    head = found.get("head_bias")
    prompts = found.get("prompts")
    rows = AdapterRows(
        prompts=prompts,
        norm_weight=found.get("norm_weight"),
        norm_bias=found.get("norm_bias"),
        head_weight=found.get("head_weight", np.empty(0, np.float32)),
        head_bias=np.empty(0, np.float32) if head is None else head,
        feature_weight=found.get("feature_weight"),
        feature_bias=found.get("feature_bias"),
        linears={
            name.removeprefix(_LINEARS): value
            for name, value in found.items()
            if name.startswith(_LINEARS)
        },
        golden=(found["golden.images"], found["golden.logits"]) if golden else None,
    )
    m = 0 if prompts is None or prompts.ndim != 3 else prompts.shape[1]
    c, d = rows.head_bias.shape[0] if rows.head_bias.ndim == 1 else 0, shape.width
    expected = {"head_weight": (shape.features, c), "head_bias": (c,)}
    expected |= {"prompts": (shape.depth, m, d)} if prompts is not None else {}
    expected |= (
        {"norm_weight": (shape.norms, d), "norm_bias": (shape.norms, d)} if shape.norms else {}
    )
    if shape.feature_norm:
        expected |= dict.fromkeys(("feature_weight", "feature_bias"), (shape.features,))
    expected |= _linear_shapes(rows, shape)
    came = {k: v.shape for k, v in found.items() if not k.startswith("golden.")}
    kinds = {v.dtype.kind for k, v in found.items() if k in expected}
    if came != expected or kinds != {"f"} or m > shape.prompts or not 0 < c <= shape.classes:
        raise BundleError(f"{path}: holds {came}, the bank has room for {shape.rows()}")
    return rows


def _linear_shapes(rows: AdapterRows, shape: BankShape) -> dict[str, tuple[int, ...]]:
    """What a file's rows of linears should be; a rank may be any that the bank has room for."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, room in shape.linears.items():
        a = rows.linears.get(f"{name}.a")
        rank = a.shape[1] if a is not None and a.ndim == 2 else 0
        own = room._replace(rank=rank if rank <= room.rank else 0)
        tables = own.tables().items()
        expected |= {
            f"{_LINEARS}{name}.{part}": row
            for part, row in tables
            if f"{name}.{part}" in rows.linears or part == "b"
        }
    return expected


def _rooms(spec: BackboneSpec, shapes: Mapping[str, Any]) -> dict[str, LinearRoom]:
    """The linears that have tables, read off the names and shapes of a manifest's inputs.

    Raises:
        KeyError: the backbone has no such linear.
    """
    found: dict[str, LinearRoom] = {}
    for table, shape in shapes.items():
        match = _TABLE.fullmatch(table)
        if match is None:
            continue
        name, part = match.groups()
        linear = bank_linears(spec)[name]
        room = found.get(name, LinearRoom(linear.inputs, linear.outputs))
        if part == "a":
            room = room._replace(rank=int(shape[2]))
        elif part != "b":
            room = room._replace(**{part if part == "bias" else f"{part}_scale": True})
        found[name] = room
    return found
