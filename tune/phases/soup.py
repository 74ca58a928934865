"""A greedy soup: the average of the best epochs' parameters, as far as val gains by it.

Wortsman et al., ICML 2022 ("Model soups", recipe 1), over epochs of one training. On little val the
single best epoch is partly luck; an average of the best is better by 0.8 ± 0.3 points where it was
measured (docs/results.md), and costs as many passes over val as epochs that are tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vptkit.tune.training.loop import top1_and_loss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vptkit.progress import Progress
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.data.dataset import DataSet
    from vptkit.tune.methods.tuned_model import Tuned
    from vptkit.tune.training.train_state import TrainState

__all__ = ["average", "make_soup"]


def make_soup(
    tuned: Tuned,
    state: TrainState,
    sets: Mapping[str, DataSet],
    config: TuneConfig,
    progress: Progress,
) -> tuple[list[int], float]:
    """Put the average of the best epochs into the model: each joins if the loss on val does not rise.

    Args:
        tuned: left with the average.
        state: `best`, and `runners_up` in their order.
        sets: val decides.
        config: `batch_to_ask`.
        progress: told about each epoch that is tried.

    Returns:
        the epochs that are in it, the best first, and its accuracy on val, a share.
    """
    assert state.best_record is not None  # noqa: S101 - an epoch or a probe there was
    epochs, kept = [state.best_epoch], [state.best]
    top1, loss = state.best_record["val_top1"], state.best_record["val_loss"]
    for epoch, parameters in state.runners_up:
        tuned.load_state_dict(average([*kept, parameters]))
        found = top1_and_loss(tuned, sets["val"], config.batch_to_ask)
        progress.update(0, f"with epoch {epoch}: val {found[0]:.3f} loss {found[1]:.3f}")
        if found[1] <= loss:
            epochs.append(epoch)
            kept.append(parameters)
            top1, loss = found
    tuned.load_state_dict(average(kept))
    return epochs, top1


def average(parameters: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, in float64; of one alone it is that one, bit by bit."""
    return {
        name: torch.stack([one[name].double() for one in parameters]).mean(dim=0).to(value.dtype)
        for name, value in parameters[0].items()
    }
