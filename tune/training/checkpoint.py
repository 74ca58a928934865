"""A training that can be killed: everything needed to go on, in one safetensors file.

No pickle: parameters, the best ones so far, those of the start where they are needed, and AdamW's
moments are tensors, the rest is JSON.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from vptkit.errors import DataError
from vptkit.formats.tensor_file import read_opened_tensors, write_tensors
from vptkit.regular_files import open_inside
from vptkit.strict_json import canonical_json, parse_json
from vptkit.tune.config import TuneConfig
from vptkit.tune.idle_settings import without_idle

from .train_state import TrainState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["load_checkpoint", "restore_moments", "restore_parameters", "save_checkpoint"]

_FORMAT = "vptkit.checkpoint/1"
_DAMAGED = "damaged checkpoint (NAME.checkpoint.safetensors, beside the adapter)"
_RECORD = frozenset(["epoch", "train_loss", "train_top1", "val_top1", "val_loss"])
_START = frozenset(["epoch", "val_top1", "val_loss", "probe"])
_SCALER = frozenset(
    ["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]
)


def save_checkpoint(
    path: Path, model: Tuned, optimizer: torch.optim.Optimizer | None, state: TrainState
) -> None:
    """Write the state after an epoch, or before the first (then without an optimizer), atomically.

    Raises:
        OutputError: the disk is full; the checkpoint of the epoch before stays.
    """
    tensors: dict[str, torch.Tensor] = {}
    tensors |= {f"param.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    tensors |= {f"start.{name}": value for name, value in state.start_parameters.items()}
    for rank, (_, found) in enumerate(state.runners_up):
        tensors |= {f"next{rank}.{name}": value for name, value in found.items()}
    learned = {} if optimizer is None else optimizer.state_dict()["state"]
    for index, moments in learned.items():
        tensors |= {f"adam.{index}.{key}": value for key, value in moments.items()}
    document = {
        "format": _FORMAT,
        "identity": state.identity,
        "epoch": state.epoch,
        "history": state.history,
        "start": state.start,
        "best_epoch": state.best_epoch,
        "runners_up": [epoch for epoch, _ in state.runners_up],
        "whitening": state.whitening,
        "scaler": state.scaler,
    }
    if state.folds is not None:
        document["folds"] = state.folds
        tensors |= {f"held_out.{part}": value for part, value in enumerate(state.held_out)}
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    write_tensors(path, arrays, ("vptkit", canonical_json(document)))


def load_checkpoint(
    path: Path, identity: dict[str, Any]
) -> tuple[TrainState, dict[str, torch.Tensor]]:
    """Read a checkpoint back; `restore_parameters` and `restore_moments` put its tensors in place.

    The file lies where vptkit put it, so a link there is not followed.

    Raises:
        DataError: not a checkpoint, damaged, or of a run with other settings or data.
    """
    with open_inside(path.parent, path.name, DataError) as stream:
        metadata, arrays = read_opened_tensors(stream, path, DataError)
    document = parse_json(metadata.get("vptkit", "{}"), path, DataError)
    if document.get("format") != _FORMAT:
        raise DataError(f"{path}: not a {_FORMAT} file. Remove it to start anew.")
    for problem in _problems(document):
        raise DataError(f"{path}: damaged checkpoint: {problem}. Remove it to start anew.")
    document["identity"] = completed(document["identity"])
    document.setdefault("runners_up", [])  # an older vptkit made no soups
    if document["identity"] != identity:
        raise DataError(f"{path}: belongs to another run: {_differences(document, identity)}")
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    begun = document["best_epoch"] or document.get("start")
    if begun and not any(name.startswith("best.") for name in tensors):
        raise DataError(f"{path}: damaged checkpoint: no best parameters. Remove it to start anew.")
    following = [
        (n, _named(tensors, f"next{rank}")) for rank, n in enumerate(document["runners_up"])
    ]
    if not all(parameters for _, parameters in following):
        raise DataError(
            f"{path}: damaged checkpoint: a runner-up is missing. Remove it to start anew."
        )
    start = _named(tensors, "start")
    if bool(start) != ((identity.get("config") or {}).get("rescale") == "all"):
        found = "has" if start else "lacks"
        raise DataError(
            f"{path}: damaged checkpoint: {found} the parameters of the start, which are kept for "
            "rescale all alone. Remove it to start anew."
        )
    state = TrainState(
        identity=identity,
        epoch=document["epoch"],
        history=document["history"],
        start=document.get("start", {}),
        best_epoch=document["best_epoch"],
        best=_named(tensors, "best"),
        runners_up=following,
        start_parameters=start,
        whitening=document["whitening"],
        scaler=document.get("scaler", {}),
        folds=document.get("folds"),
        held_out=_held_out(tensors),
    )
    return state, tensors


def restore_parameters(model: Tuned, tensors: dict[str, torch.Tensor]) -> None:
    """Put the parameters back.

    Raises:
        DataError: parameters, the best ones, or those of the start, are not those of this model.
    """
    state = model.state_dict()
    kept = _named(tensors, "param")
    kinds = {name.partition(".")[0] for name in tensors} & {"best", "start", "next0", "next1"}
    others = [_named(tensors, kind) for kind in sorted(kinds)]
    odd = {name for found in (kept, *others) for name in set(state) ^ set(found)}
    for name in sorted(odd):
        raise DataError(f"{_DAMAGED}: the parameter {name!r} is missing or not known")
    for name, value in (pair for found in (kept, *others) for pair in found.items()):
        if value.shape != state[name].shape or value.dtype != state[name].dtype:
            raise DataError(
                f"{_DAMAGED}: the parameter {name!r} is {value.dtype} "
                f"{tuple(value.shape)}, expected {state[name].dtype} {tuple(state[name].shape)}"
            )
    model.load_state_dict(kept)


def _named(tensors: Mapping[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """Those of a kind, "param", "best" or "start", by the names that the model has for them."""
    prefix = f"{kind}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put AdamW's moments back; the optimizer must be that of the same phase.

    Raises:
        DataError: there are others than this optimizer's.
    """
    document = optimizer.state_dict()
    learned = [value for group in optimizer.param_groups for value in group["params"]]
    expected = {
        f"adam.{index}.{key}": (index, key)
        for index in range(len(learned))
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            index, key = expected.get(name, (-1, ""))
            numbers = 1 if key == "step" else learned[index].numel()
            if index < 0 or value.numel() != numbers:
                raise DataError(f"{_DAMAGED}: {name!r} does not fit this optimizer")
            moments.setdefault(index, {})[key] = value
    if any(len(kept) != 3 for kept in moments.values()):
        raise DataError(f"{_DAMAGED}: the optimizer's moments are not whole")
    optimizer.load_state_dict({**document, "state": moments})


def _problems(document: dict[str, Any]) -> Iterator[str]:
    """What of a checkpoint's document is not as `save_checkpoint` writes it."""
    kinds = {"identity": dict, "history": list, "whitening": list, "epoch": int, "best_epoch": int}
    for key, kind in {**kinds, "scaler": dict}.items():
        # a boolean is an int to Python; an older vptkit wrote no scaler
        if type(document.get(key, {} if key == "scaler" else None)) is not kind:
            yield f"{key} is missing or no {kind.__name__}"
            return
    epoch, best, history = document["epoch"], document["best_epoch"], document["history"]
    if not 0 <= best <= epoch or len(history) != epoch:
        yield f"epoch is {epoch}, best_epoch {best}, with a history of {len(history)}"
    for number, record in enumerate(history, 1):
        if not isinstance(record, dict) or not _is_record(record, document):
            yield f"history: epoch {number} is no record of numbers"
        elif missing := sorted(_RECORD - set(record)):
            yield f"history: epoch {number} has no {', '.join(missing)}"
    if not isinstance(document["identity"].get("config", {}), dict):
        yield "identity: config is no object"
    yield from _problems_of_runners_up(document)
    yield from _problems_of_start(document)
    if not all(isinstance(one, dict) for one in document["whitening"]):
        yield "whitening is no list of objects"
    scaler = document.get("scaler", {})
    if (scaler and set(scaler) != _SCALER) or not all(map(_is_plain, scaler.values())):
        yield "scaler is not that of fp16's losses"


def _problems_of_runners_up(document: dict[str, Any]) -> Iterator[str]:
    following, epoch = document.get("runners_up", []), document["epoch"]
    if not isinstance(following, list) or not all(type(one) is int for one in following):
        yield "runners_up is no list of epochs"
    elif len(following) > 2 or not {0, *following} <= set(range(epoch + 1)):
        yield f"runners_up is {following}, with {epoch} epochs done"


def _held_out(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The logits of the parts that are done.

    Raises:
        DataError: one is missing before others.
    """
    found = {name: value for name, value in tensors.items() if name.startswith("held_out.")}
    wanted = [f"held_out.{part}" for part in range(len(found))]
    for name in sorted(set(wanted) ^ set(found)):
        raise DataError(f"{_DAMAGED}: {name!r} is missing or not known")
    return [found[name] for name in wanted]


def _problems_of_start(document: dict[str, Any]) -> Iterator[str]:
    start, numbers = document.get("start", {}), ("val_top1", "val_loss")
    if "folds" in document and (type(document["folds"]) is not int or document["folds"] < 0):
        yield "folds is no number of parts"
    if not isinstance(start, dict):
        yield "start is no object"
    elif start and not (
        set(start) >= _START and _is_record({k: start[k] for k in numbers}, document)
    ):
        yield "start is no record of what val says before the first epoch"


def _is_record(record: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether all is plain; of val there is nothing to say where no image could be held out."""
    blank = ("val_top1", "val_loss") if document.get("folds") == 0 else ()
    return all(_is_plain(v) or (v is None and k in blank) for k, v in record.items())


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def completed(identity: dict[str, Any]) -> dict[str, Any]:
    """An older vptkit's identity: settings that it did not know stood as it worked."""
    then = identity.get("config") or {}
    if "method" not in then:
        return identity
    old = {"head_init": "zero", "select": "top1", "b_init": "random"}
    known = {"method": then["method"]} | {key: then.get(key, value) for key, value in old.items()}
    defaults = TuneConfig(backbone="", **without_idle(known))
    return {**identity, "config": {**defaults.to_json(), **then}}


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
