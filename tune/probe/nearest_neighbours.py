"""Cosine k-nearest neighbours on frozen features: the floor that needs no training.

The vote of the k most similar training rows, each weighed by exp(similarity / 0.07), as DINO counts
it (Caron et al., ICCV 2021; Wu et al., CVPR 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

if TYPE_CHECKING:
    from .fit_probe import Rows

__all__ = ["knn_top1"]

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
