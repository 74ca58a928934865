"""A training that can be killed: everything needed to go on, in one safetensors file.

No pickle: parameters, the best ones so far and AdamW's moments are tensors, the rest is JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vptkit.errors import DataError
from vptkit.formats.tensor_file import read_metadata, read_tensors, write_tensors
from vptkit.strict_json import canonical_json
from vptkit.tune.config import TuneConfig

from .train_state import TrainState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["load_checkpoint", "restore_moments", "restore_parameters", "save_checkpoint"]

_FORMAT = "vptkit.checkpoint/1"


def save_checkpoint(
    path: Path, model: Tuned, optimizer: torch.optim.Optimizer, state: TrainState
) -> None:
    """Write the state after an epoch, atomically.

    Raises:
        OutputError: the disk is full; the checkpoint of the epoch before stays.
    """
    tensors: dict[str, torch.Tensor] = {}
    tensors |= {f"param.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value for key, value in moments.items()}
    document = {
        "format": _FORMAT,
        "identity": state.identity,
        "epoch": state.epoch,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "whitening": state.whitening,
        "scaler": state.scaler,
    }
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    write_tensors(path, arrays, ("vptkit", canonical_json(document)))


def load_checkpoint(
    path: Path, identity: dict[str, Any]
) -> tuple[TrainState, dict[str, torch.Tensor]]:
    """Read a checkpoint back; `restore_parameters` and `restore_moments` put its tensors in place.

    Raises:
        DataError: not a checkpoint, damaged, or of a run with other settings or data.
    """
    try:
        document = json.loads(read_metadata(path, DataError).get("vptkit", "null"))
    except ValueError as error:
        raise DataError(f"{path}: damaged checkpoint: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DataError(f"{path}: not a {_FORMAT} file. Remove it to start anew.")
    document["identity"] = completed(document["identity"])
    if document["identity"] != identity:
        raise DataError(f"{path}: belongs to another run: {_differences(document, identity)}")
    tensors = {
        name: torch.from_numpy(np.array(value))
        for name, value in read_tensors(path, DataError).items()
    }
    state = TrainState(
        identity=identity,
        epoch=document["epoch"],
        history=document["history"],
        best_epoch=document["best_epoch"],
        best={k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")},
        whitening=document["whitening"],
        scaler=document.get("scaler", {}),
    )
    return state, tensors


def restore_parameters(model: Tuned, tensors: dict[str, torch.Tensor]) -> None:
    """Put the parameters back."""
    model.load_state_dict(
        {k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")}
    )


def restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put AdamW's moments back; the optimizer must be that of the same phase."""
    document = optimizer.state_dict()
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**document, "state": moments})


def completed(identity: dict[str, Any]) -> dict[str, Any]:
    """An older vptkit's identity: settings that it did not know stood at their defaults."""
    then = identity.get("config") or {}
    if "method" not in then:
        return identity
    defaults = TuneConfig(backbone="", method=then["method"]).to_json()
    return {**identity, "config": {**defaults, **then}}


def _differences(document: dict[str, Any], identity: dict[str, Any]) -> str:
    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        parts = [flat(v, f"{prefix}.{k}" if prefix else k) for k, v in value.items()]
        return {k: v for part in parts for k, v in part.items()}

    old, new = flat(document["identity"]), flat(identity)
    odd = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    shown = ", ".join(f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in odd[:4])
    return f"{shown}. Resume with the same settings, or start anew with --force."
