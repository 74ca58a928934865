"""The bank layout: one graph, and the adapters of a batch looked up in tables.

The tables are inputs of the graph. With A adapters, L blocks, T tokens, S LayerNorms and, fixed when
the graph is written, m prompts and C classes at most:

bank.prompts       [A L, m, d]      prompt rows behind LayerNorm 1 (block i of adapter a: a L + i)
bank.mask          [A, 1, 1, T+m]   added to attention logits: 0, or MASKED for rows that only pad
bank.norm_weight   [A S, d]         tuned LayerNorms (only if the bank has room for them)
bank.norm_bias     [A S, d]
bank.head_weight   [A, f, C]        the final norm's affine is folded in; f is d, or 2 d (`pooling`)
bank.head_bias     [A, C]

On disk each adapter is one small file `adapters/NAME-DIGEST.safetensors` with its own rows, not
padded, so that adding one neither rewrites nor reads the others.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.atomic_files import atomic_file
from vptkit.errors import BundleError

from .manifest_schema import ADAPTERS
from .pooling import head_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .backbone_spec import BackboneSpec

__all__ = [
    "MASKED",
    "NORMS",
    "AdapterRows",
    "BankShape",
    "kept_norms",
    "norm_slots",
    "parse_rows",
    "write_rows",
]

NORMS = "norms.safetensors"  # the backbone's own: whoever adds an adapter needs them
# Exact in float16, bfloat16 and float32. Attention logits are some hundreds at most, so exp of the
# sum is 0 in each of them; and twice this is not yet -inf in bfloat16 or float32.
MASKED = -32768.0
_DIGEST_LETTERS = 8
_ROW_NUMBERS = 1 << 28  # that one adapter takes in the tables, at most


def norm_slots(spec: BackboneSpec) -> tuple[str, ...]:
    """Timm names of the S LayerNorms that differ between adapters, in the order of their rows.

    The final norm is not among them: its affine is folded into each head.
    """
    pre = ("norm_pre",) if spec.norm_pre else ()
    blocks = (f"blocks.{i}.norm{n}" for i in range(spec.depth) for n in (1, 2))
    return (*pre, *blocks)


def kept_norms(
    spec: BackboneSpec, tensors: Mapping[str, Any], *, layer_norms: bool
) -> dict[str, Any]:
    """Of tensors by timm name those of the norms that a bank keeps of its backbone (NORMS).

    Args:
        spec: the backbone.
        tensors: by timm name; arrays, or their shapes.
        layer_norms: an adapter may bring tuned LayerNorms. Without, only the final norm is kept.
    """
    names = {*(norm_slots(spec) if layer_norms else ()), spec.final_norm}
    return {name: value for name, value in tensors.items() if name.rpartition(".")[0] in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class BankShape:
    """What a bank has room for; all but the number of adapters is fixed in the graph.

    Attributes:
        depth, width, tokens: L, d and T of the backbone.
        features: f, how many numbers a head takes.
        prompts: m, the most prompts of an adapter; 0 if none can have any.
        classes: C, the most classes of an adapter.
        norms: S, or 0 if no adapter can bring tuned LayerNorms.
    """

    depth: int
    width: int
    tokens: int
    features: int
    prompts: int
    classes: int
    norms: int

    @classmethod
    def of(
        cls, spec: BackboneSpec, *, pool: str, prompts: int, classes: int, layer_norms: bool
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
        golden: the reference's own answers, uint8 [G, H, W, 3] and float32 [G, C], or None.
    """

    prompts: NDArray[np.float32] | None
    norm_weight: NDArray[np.float32] | None
    norm_bias: NDArray[np.float32] | None
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
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
        classes = len(self.head_bias)
        for name, value in (("head_weight", self.head_weight), ("head_bias", self.head_bias)):
            tables[f"bank.{name}"][slot, ..., :classes] = value
            tables[f"bank.{name}"][slot, ..., classes:] = 0


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
        golden=(found["golden.images"], found["golden.logits"]) if golden else None,
    )
    m = 0 if prompts is None or prompts.ndim != 3 else prompts.shape[1]
    c, d = rows.head_bias.shape[0] if rows.head_bias.ndim == 1 else 0, shape.width
    expected = {"head_weight": (shape.features, c), "head_bias": (c,)}
    expected |= {"prompts": (shape.depth, m, d)} if prompts is not None else {}
    expected |= (
        {"norm_weight": (shape.norms, d), "norm_bias": (shape.norms, d)} if shape.norms else {}
    )
    came = {k: v.shape for k, v in found.items() if not k.startswith("golden.")}
    kinds = {v.dtype.kind for k, v in found.items() if k in expected}
    if came != expected or kinds != {"f"} or m > shape.prompts or not 0 < c <= shape.classes:
        raise BundleError(f"{path}: holds {came}, the bank has room for {shape.rows()}")
    return rows
