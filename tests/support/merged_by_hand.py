"""Token merging of one image, written out token by token from the equations (ToMe, ICLR 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["merged_by_hand"]


def merged_by_hand(keys: Any, z: Any, size: Any, protected: int, r: int) -> tuple[Any, Any]:
    """Tokens [T - r, d] and sizes [T - r] behind the merging.

    Args:
        keys: float [h, T, e].
        z: float [T, d].
        size: float [T].
        protected: how many tokens in front are neither merged nor merged into.
        r: how many vanish.
    """
    metric = keys.mean(axis=0)
    metric = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    free = range(protected, len(z))
    a, b = [i for i in free if i % 2 == 0], [i for i in free if i % 2 == 1]
    best = {i: max(b, key=lambda j, i=i: (metric[i] @ metric[j], -j)) for i in a}
    merged = sorted(a, key=lambda i: (-(metric[i] @ metric[best[i]]), i))[:r]
    weight, total = size.copy(), z * size[:, None]
    for i in merged:
        weight[best[i]] += size[i]
        total[best[i]] += z[i] * size[i]
    order = [*range(protected), *(i for i in a if i not in merged), *b]
    return total[order] / weight[order, None], weight[order]
