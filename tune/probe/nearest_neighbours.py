"""Cosine k-nearest neighbours on frozen features: the floor that needs no training.

The vote of the k most similar training rows, each weighed by exp(similarity / 0.07), as DINO counts
it (Caron et al., ICCV 2021; Wu et al., CVPR 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from .fit_probe import Rows, held_out

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cross_validated_knn", "knn_top1"]

_TEMPERATURE = 0.07
_ROWS = 1024  # queries at once


def knn_top1(train: Rows, queries: Rows, classes: int, k: int) -> float:
    """Share of the queries whose class the neighbours name.

    Args:
        train: among whom the neighbours are.
        queries: rows to judge, with their true classes.
        classes: C
        k: neighbours; all of `train` where it has fewer.
    """
    known = normalize(train.features, dim=1)
    right = 0
    for rows, targets in zip(
        queries.features.split(_ROWS), queries.targets.split(_ROWS), strict=True
    ):
        near = (normalize(rows, dim=1) @ known.T).topk(min(k, len(known)), dim=1)
        votes = torch.zeros(len(rows), classes, device=rows.device)
        votes.scatter_add_(1, train.targets[near.indices], (near.values / _TEMPERATURE).exp())
        right += int((votes.argmax(dim=1) == targets).sum())
    return right / len(queries.targets)


def cross_validated_knn(plain: Rows, parts: Tensor, classes: int, k: int) -> float | None:
    """Share of the held-out rows whose class their neighbours among the others name.

    Args:
        plain: rows without augmentation, [n].
        parts: of each, int64 [n]; negative: never held out. None comes back if all are.
        classes, k: of `knn_top1`.
    """
    right, count = 0.0, int((parts >= 0).sum())
    for part in range(int(parts.max()) + 1):
        others = parts != part
        queries = held_out(plain, parts, part)
        known = Rows(plain.features[others], plain.targets[others])
        right += knn_top1(known, queries, classes, k) * len(queries.targets)
    return right / count if count else None
