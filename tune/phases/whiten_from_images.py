"""The whitening matrix of each block, from random images of the training split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vptkit.errors import DataError
from vptkit.images.preprocess import normalize
from vptkit.tune.burstiness.block_burstiness import kurtosis_of_products
from vptkit.tune.methods.whitening import token_moments, whitening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from vptkit.backbones.merge_schedule import TokenMerging
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet

__all__ = ["whitening_matrices"]

_BURSTS = 8  # images: a million numbers a block


def whitening_matrices(
    backbone: Any,
    data: DataSet,
    config: TuneConfig,
    merging: TokenMerging | None = None,
    *,
    bursts: bool = True,
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """W for each block from random training images (evaluation transform, no prompts).

    Args:
        backbone: the frozen timm model.
        data: the training split.
        config: `whiten_images`, `whiten_floor`, `tap`, `compat`, `insert` and the seed.
        merging: how the run merges tokens.
        bursts: measure the burstiness, too, on some of the images, where no tokens are merged.

    Returns:
        W of each block [d, d], of the first alone with shallow prompts; and their diagnostics
        (`Whitening.to_json`, "kurtosis": [before, after]).

    Raises:
        DataError: the images' tokens are degenerate.
    """
    count = min(config.whiten_images, len(data))
    chosen = np.sort(np.random.default_rng([config.seed, 1]).permutation(len(data))[:count])

    def batches(chosen: NDArray[np.int64]) -> Iterator[Tensor]:
        for part in np.array_split(chosen, max(1, len(chosen) // 16)):
            images = data.prepared(part)
            yield torch.from_numpy(normalize(images, data.preprocess))

    released = config.compat == "released"
    shallow = config.insert == "shallow"
    moments = token_moments(backbone, batches(chosen), config.tap, merging)
    results = [
        whitening(
            block.attn,
            moment,
            form="released" if released else "attention",
            floor=config.whiten_floor,
            same_query_key=released and shallow,
        )
        for block, moment in zip(backbone.blocks, moments, strict=True)
    ]
    results = results[:1] if shallow else results
    if not all(torch.isfinite(result.matrix).all() for result in results):
        raise DataError("whitening failed: the tokens of the training images are degenerate")
    matrices, told = [r.matrix for r in results], [r.to_json() for r in results]
    if bursts and merging is None:  # as `analyze`, which knows no merged tokens
        few = chosen[:: max(1, count // _BURSTS)][:_BURSTS]
        found = kurtosis_of_products(backbone, batches(few), matrices, config.tap)
        told = [{**one, "kurtosis": [*pair]} for one, pair in zip(told, found, strict=True)]
    return matrices, told
