"""Which execution provider ran which nodes: read from the profile that ONNX Runtime writes.

ONNX Runtime gives nodes that a provider does not take to the next one, at last to the processor,
and says nothing. Its CUDA provider puts arithmetic on shapes on the processor on purpose
(`session.disable_cpu_ep_fallback` refuses such graphs), so what matters is where the work ran.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from vptkit.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_placement", "require_on"]

# What a ViT spends its time on, fused variants included (FusedMatMul, SkipLayerNormalization, …).
_WORK = re.compile(r"MatMul|Gemm|Conv|Softmax|Norm|Attention|Gelu|Erf")


def read_placement(profile: Path) -> dict[str, Counter[str]]:
    """Read the profile of a session's runs.

    Returns:
        provider → operator → how often one of its nodes ran there. A part of the graph that a
        provider compiled as a whole counts once, under a name of the provider's.
    """
    found: dict[str, Counter[str]] = {}
    for event in json.loads(profile.read_text(encoding="utf-8")):
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and arguments.get("provider"):
            operators = found.setdefault(arguments["provider"], Counter())
            operators[arguments.get("op_name", "")] += 1
    return found


def require_on(provider: str, placement: dict[str, Counter[str]]) -> None:
    """Refuse a session whose work ran elsewhere.

    Raises:
        TargetError: no node ran on the provider, or one that computes ran on another.
    """
    elsewhere = [
        f"{count} {operator} on {other}"
        for other, operators in placement.items()
        if other != provider
        for operator, count in sorted(operators.items())
        if _WORK.search(operator)
    ]
    if elsewhere:
        raise TargetError(
            f"{provider} does not take the whole graph; there ran {', '.join(elsewhere)}. "
            "Pass another --backend."
        )
    if not placement.get(provider):
        raise TargetError(
            f"{provider} ran no node of the graph: all of it ran on "
            f"{', '.join(placement) or 'nothing'}. Pass another --backend."
        )
