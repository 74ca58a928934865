"""What a sweep tries: a TOML document becomes a list of trials, the same list every time.

    data = "birds"

    [tune]                       # fixed, as in a file for `vptkit tune --config`
    backbone = "vit_small_patch16_224"
    epochs = 30

    [space]                      # swept: lists, or ranges
    method = ["vpt", "bpt"]
    prompts = [10, 50]
    lr = {low = 1e-4, high = 1e-1, log = true}

    [search]
    kind = "random"
    samples = 24

No Ray in here: what is drawn depends on the document alone, not on who runs it, nor where.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vptkit.errors import VptkitError
from vptkit.tune.config import PATHS, TuneConfig, config_from_mapping
from vptkit.tune.idle_settings import idle_settings, without_idle

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Search", "Span", "Sweep", "sweep_from_mapping"]

_MOST_TRIALS = 10_000
_METHOD = "ln"  # where none is given: auto is a search of its own
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of one setting; whole numbers if both ends are.

    Attributes:
        low, high: both may be drawn.
        log: even in the logarithm.
        steps: number of values a grid takes of it.
    """

    low: float
    high: float
    log: bool = False
    steps: int | None = None

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the way, in four digits: settings are to be read."""
        if self.log:
            value = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        else:
            value = self.low + share * (self.high - self.low)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return round(value)
        return min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How the trials are chosen and run: the table [search].

    Attributes:
        kind: "grid" tries every combination, "random" draws.
        samples, seed: of random.
        pruning: stop trials that are behind (asynchronous successive halving).
        grace: epochs that every trial gets.
        reduction: one in so many goes on at each rung: grace, grace·reduction, ... epochs.
        cpus, gpus: for each trial; shares of a GPU are allowed. 0 gpus where there are some needs
            [tune] device to say what to compute on.
        parallel: at most so many trials at once; None: as many as fit.
        retries: how often a trial whose worker died is started again.
    """

    kind: Literal["grid", "random"] = "grid"
    samples: int = 20
    seed: int = 0
    pruning: bool = False
    grace: int = 3
    reduction: float = 3.0
    cpus: float = 1.0
    gpus: float = 0.0
    parallel: int | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            VptkitError: a value is out of range.
        """
        if self.kind not in ("grid", "random"):
            raise VptkitError(f"[search] kind is {self.kind!r}, expected grid or random")
        for names, holds, wanted in (
            ("samples grace parallel", lambda v: v >= 1, "at least 1"),
            ("seed retries", lambda v: v >= 0, "0 or more"),
            ("reduction", lambda v: 1 < v < math.inf, "above 1"),
            ("cpus", lambda v: 0 < v < math.inf, "above 0"),
            ("gpus", lambda v: 0 <= v < math.inf, "0 or more"),
        ):
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not holds(value):
                    raise VptkitError(f"[search] {name} is {value}, expected {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep, ready to run.

    Attributes:
        data: images, of `vptkit.tune.data.dataset_reader.read_splits`.
        fixed: settings of every trial.
        space: swept setting → its values, or its range.
        search: how.
        trials: the swept settings of each trial; its number is its place here.
    """

    data: Path
    fixed: dict[str, Any]
    space: dict[str, list[Any] | Span]
    search: Search
    trials: tuple[dict[str, Any], ...] = field(default=())

    def settings(self, number: int) -> dict[str, Any]:
        """All settings that matter in a trial, for `vptkit.tune.config_from_mapping`; a trial has one method."""
        return without_idle(self._all_settings(number))

    def idle(self) -> dict[str, str]:
        """Settings that do nothing in any trial, and which runs they are for."""
        found = [idle_settings(self._all_settings(number)) for number in range(len(self.trials))]
        always = set.intersection(*map(set, found)) if found else set()
        given = [key for key in (*self.fixed, *self.space) if key in always]
        return {key: found[0][key] for key in given}

    def _all_settings(self, number: int) -> dict[str, Any]:
        found = {"method": _METHOD, **self.fixed, **self.trials[number]}
        if "tensorboard" in found:  # a folder a trial
            found["tensorboard"] = str(Path(found["tensorboard"]) / f"trial-{number:04d}")
        return found

    def config(self, number: int) -> TuneConfig:
        """The configuration of a trial.

        Raises:
            VptkitError: a setting is out of range, or for single runs only.
        """
        return config_from_mapping(self.settings(number))

    def to_json(self) -> dict[str, Any]:
        """What makes it this sweep and no other: not how it is run."""
        space = {k: asdict(v) if isinstance(v, Span) else v for k, v in self.space.items()}
        pruning = [self.search.grace, self.search.reduction] if self.search.pruning else None
        return {
            "data": str(self.data),
            "tune": {
                key: str(value) if isinstance(value, Path) else value
                for key, value in self.fixed.items()
                if key not in ("allow_outside", "pictures", "tensorboard")
            },
            "space": space,
            "pruning": pruning,
            "trials": list(self.trials),
        }


def sweep_from_mapping(
    document: Mapping[str, Any],
    *,
    data: Path | None = None,
    allow_outside: bool = False,
    folder: Path | None = None,
    tensorboard: Path | None = None,
) -> Sweep:
    """A sweep from a parsed TOML file.

    Relative paths of the document hold from its folder, and are made absolute: trials run elsewhere.

    Args:
        document: keys data, tune, space, search.
        data: instead of the document's.
        allow_outside: of `vptkit.tune.config.TuneConfig`; a document must not say it.
        folder: where the document lies; None: the current one.
        tensorboard: where each trial has a folder of logs; a document must not say it.

    Raises:
        VptkitError: an unknown key, an empty space, or settings that one of the trials cannot have.
    """
    unknown = sorted(set(document) - {"data", "tune", "space", "search"})
    if unknown:
        raise VptkitError(f"unknown {unknown}; expected data, [tune], [space] and [search]")
    images = data if data is not None else _absolute(document.get("data"), folder)
    if not isinstance(images, str | Path):
        raise VptkitError('no data: write data = "FOLDER" at the top of the file, or pass --data')
    fixed = _table(document, "tune") | ({"allow_outside": True} if allow_outside else {})
    fixed |= {"tensorboard": str(tensorboard.absolute())} if tensorboard is not None else {}
    space = {key: _values(key, value) for key, value in _table(document, "space").items()}
    for key in PATHS:
        if key in fixed:
            fixed[key] = _absolute(fixed[key], folder)
        values = space.get(key)
        if isinstance(values, list):
            space[key] = [_absolute(value, folder) for value in values]
    if not space:
        raise VptkitError("[space] is empty: name at least one setting, as lr = [0.001, 0.01]")
    twice = sorted(set(fixed) & set(space))
    if twice:
        raise VptkitError(f"{twice} stand in [tune] and in [space]: keep one of them")
    search = _search(_table(document, "search"))
    trials = _grid(space) if search.kind == "grid" else _drawn(space, search)
    sweep = Sweep(
        data=Path(images).absolute(), fixed=fixed, space=space, search=search, trials=trials
    )
    if idle := sweep.idle():
        told = [f"{key} does nothing in any trial: it is for {of}" for key, of in idle.items()]
        raise VptkitError("; ".join(told))
    for number in range(len(trials)):
        _require_config(sweep, number)
    return sweep


def _require_config(sweep: Sweep, number: int) -> None:
    try:
        sweep.config(number)
    except VptkitError as error:
        raise VptkitError(f"trial {number} {sweep.trials[number]}: {error}") from error


def _absolute(value: Any, folder: Path | None) -> Any:
    if not isinstance(value, str | Path):
        return value
    return str((folder or Path()).joinpath(value).absolute())


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise VptkitError(f"{name} is {table!r}, expected a table [{name}]")
    if "allow_outside" in table:  # the file may come from a stranger
        raise VptkitError("allow_outside is not for a file to say: pass --allow-outside yourself")
    if "tensorboard" in table:
        raise VptkitError("tensorboard is not for a file to say: pass --tensorboard yourself")
    return dict(table)


def _search(table: dict[str, Any]) -> Search:
    """[search], where pruning is true, false or {grace, reduction}; on unless kind is grid."""
    pruning = table.get("pruning", table.get("kind") == "random")
    if isinstance(pruning, dict):
        odd = sorted(set(pruning) - {"grace", "reduction"})
        if odd:
            raise VptkitError(f"[search] pruning: unknown {odd}; known are grace and reduction")
        table = {**table, **pruning}
        pruning = True
    table = {**table, "pruning": pruning}
    kinds = {f.name: str(f.type) for f in fields(Search)}
    unknown = sorted(set(table) - set(kinds))
    if unknown:
        raise VptkitError(f"[search]: unknown {unknown}; known are {sorted(kinds)}")
    for key, value in table.items():
        wanted = kinds[key].removesuffix(" | None")
        allowed = _KINDS.get(wanted, (str,))
        if not isinstance(value, allowed) or (isinstance(value, bool) and wanted != "bool"):
            raise VptkitError(f"[search] {key} is {value!r}, expected {wanted}")
    return Search(**table)


def _values(key: str, value: Any) -> list[Any] | Span:
    if isinstance(value, list):
        if not value or any(isinstance(item, list | dict) for item in value):
            raise VptkitError(f"[space] {key} is {value!r}, expected a list of plain values")
        return value
    if not isinstance(value, dict) or not {"low", "high"} <= set(value):
        raise VptkitError(f"[space] {key} is {value!r}, expected a list or {{low = , high = }}")
    odd = sorted(set(value) - {"low", "high", "log", "steps"})
    if odd:
        raise VptkitError(f"[space] {key}: unknown {odd}; known are low, high, log and steps")
    low, high = value["low"], value["high"]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise VptkitError(f"[space] {key}: low and high are {low!r}, {high!r}, expected numbers")
    if not (-math.inf < low < high < math.inf):
        raise VptkitError(f"[space] {key}: low is {low}, high {high}, expected low below high")
    log, steps = value.get("log", False), value.get("steps")
    if not isinstance(log, bool) or (log and low <= 0):
        raise VptkitError(f"[space] {key}: log is {log!r}: true needs low above 0, which is {low}")
    if steps is not None and (type(steps) is not int or steps < 2):
        raise VptkitError(f"[space] {key}: steps is {steps!r}, expected a number from 2")
    return Span(low=low, high=high, log=log, steps=steps)


def _grid(space: dict[str, list[Any] | Span]) -> tuple[dict[str, Any], ...]:
    """Every combination; the last setting changes fastest."""
    axes: list[list[Any]] = []
    for key, values in space.items():
        if isinstance(values, Span):
            if values.steps is None:
                raise VptkitError(
                    f"[space] {key}: a grid needs a list, or steps beside low and high; or set "
                    'kind = "random" in [search]'
                )
            last = values.steps - 1
            axes.append(list(dict.fromkeys(values.at(i / last) for i in range(last + 1))))
        else:
            axes.append(list(dict.fromkeys(values)))
    count = math.prod(map(len, axes))
    if count > _MOST_TRIALS:
        raise VptkitError(
            f"[space]: the grid has {count} trials, the most is {_MOST_TRIALS}. Take fewer values, "
            'or set kind = "random" in [search]'
        )
    return tuple(dict(zip(space, values, strict=True)) for values in itertools.product(*axes))


def _drawn(space: dict[str, list[Any] | Span], search: Search) -> tuple[dict[str, Any], ...]:
    """Different ones, as many as asked for, or as many as a small space seems to have."""
    rng = np.random.default_rng(search.seed)
    found: list[dict[str, Any]] = []
    for _ in range(100 * search.samples):
        drawn = {
            key: values.at(float(rng.random()))
            if isinstance(values, Span)
            else values[int(rng.integers(len(values)))]
            for key, values in space.items()
        }
        if drawn not in found:
            found.append(drawn)
        if len(found) == search.samples:
            break
    return tuple(found)
