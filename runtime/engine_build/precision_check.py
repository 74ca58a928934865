"""Whether an engine computes in the type that it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.errors import GateError, VptkitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.formats.bundle import Bundle
    from vptkit.runtime.backends.engine_cache import Engine

__all__ = ["require_known", "require_type", "shortfalls"]

_TYPES = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8"}
_HEAVY = ("gemm", "conv", "attention")
_HEAD = ("norm", "pool", "head", "logits", "scores", "features")  # nodes of the island "head"


def require_known(expect: str) -> None:
    """Refuse an unknown type.

    Raises:
        VptkitError: not one of fp32, fp16, bf16, int8, fp8.
    """
    if expect not in _TYPES:
        raise VptkitError(f"--expect {expect!r}: expected {', '.join(_TYPES)}")


def shortfalls(record: Mapping[str, Any], expect: str, islands: Sequence[str] = ()) -> list[str]:
    """What an engine does otherwise than in the type that it should compute in.

    Args:
        record: of the engine.
        expect: one of fp32, fp16, bf16, int8, fp8. Of a quantized graph only the linears that are
            quantized in it must compute so.
        islands: parts that the graph itself keeps in fp32.

    Raises:
        VptkitError: an unknown type.
    """
    require_known(expect)
    made, wanted = record["structure"], _TYPES[expect]
    if made["opaque"] or not record["layers"]:
        return ["the library does not show the layers of this engine, so nothing can be promised"]
    found = []
    heavy = [layer for layer in record["layers"] if layer["role"] in _HEAVY]
    if expect in ("int8", "fp8"):
        found += [f"{node} runs dequantized" for node in made["dequantized_gemms"]]
        if not any(layer["type"] == wanted for layer in heavy):
            found.append(f"no layer computes in {expect}")
    else:
        for layer in heavy:
            if layer["type"] != wanted and not _on_islands(layer["nodes"], islands):
                found.append(f"{layer['name']} ({layer['role']}) computes in {layer['type']}")
    if expect != "fp32":
        found += [f"{node}: attention is not fused" for node in made["unfused_softmax"]]
    return found


def require_type(engine: Engine, expect: str, bundle: Bundle) -> None:
    """Refuse an engine that does not compute in a type; see `shortfalls`.

    Raises:
        GateError: some layers do not.
        VptkitError: an unknown type.
    """
    islands = (bundle.manifest["lowering"] or {}).get("islands", ())
    found = shortfalls(engine.record, expect, islands)
    if found:
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise GateError(
            f"{engine.path}: expected {expect}, but {'; '.join(found[:8])}{more}. A graph that "
            "keeps its type comes of vptkit export --target tensorrt."
        )


def _on_islands(nodes: Sequence[str], islands: Sequence[str]) -> bool:
    heads = [head for island in islands for head in (_HEAD if island == "head" else (island,))]
    return any(node.startswith(head) for node in nodes for head in heads)
