"""Which setting belongs to which method: what would be given in vain is refused, all by one table.

A setting matters if it can change the result, the files or the memory of the run. Of method auto it
matters where it does so for one of the candidates (`vptkit.tune.auto.candidates`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["idle_settings", "why_idle", "without_idle"]

_USUAL = {"method": "auto", "insert": "deep", "form": "bilinear", "b_init": "whiten"}
_USUAL |= {"augment": "flip"}
_OF_AUTO = ("ln", "vpt")
_OF_AUTO_IN_A_BUDGET = ("ln", "vpt", "bpt")


def _prompted(run: Mapping[str, Any]) -> bool:
    return _learns(run, "vpt") or _learns(run, "bpt")


def _bilinear(run: Mapping[str, Any]) -> bool:
    return _learns(run, "bpt") and run["form"] == "bilinear"


def _whitened(run: Mapping[str, Any]) -> bool:
    return _learns(run, "bpt") and (run["form"] != "bilinear" or run["b_init"] == "whiten")


def _factored(run: Mapping[str, Any]) -> bool:
    return _learns(run, "lora")


def _trained(run: Mapping[str, Any]) -> bool:
    return bool(run["method"] != "linear")


def _learns(run: Mapping[str, Any], part: str) -> bool:
    return part in str(run["method"]).split("+")


class _Rule(NamedTuple):
    """Settings, in which runs they matter, and which runs those are, for people."""

    keys: str
    matter: Callable[[Mapping[str, Any]], bool]
    of: str


_RULES = (
    _Rule(
        "insert prompts lr dropout", _prompted, "methods that learn prompts (vpt, bpt, ln+vpt, …)"
    ),
    _Rule(
        "wd",
        lambda run: _prompted(run) or _factored(run),
        "methods that learn prompts or low-rank factors (vpt, bpt, lora, …)",
    ),
    _Rule("lora_rank lora_alpha lora_targets lr_lora", _factored, "method lora and those with it"),
    _Rule("form compat", lambda run: _learns(run, "bpt"), "method bpt and those with it"),
    _Rule("rank b_init", _bilinear, "bpt of form bilinear, and methods with it"),
    _Rule(
        "tune_b_last",
        lambda run: _bilinear(run) and run["insert"] == "deep",
        "deep bpt of form bilinear, and methods with it",
    ),
    _Rule(
        "whiten_images whiten_floor tap",
        _whitened,
        "bpt that whitens (form fwhiten or twhiten, or b_init whiten), and methods with it",
    ),
    _Rule("lr_ln", lambda run: _learns(run, "ln"), "methods that tune LayerNorms"),
    _Rule(
        "epochs",
        lambda run: _trained(run) and not run.get("cycles"),
        "trainings without cycles, which have head_epochs and ln_epochs; linear is solved at once",
    ),
    _Rule("head_epochs ln_epochs", lambda run: bool(run.get("cycles")), "trainings with cycles"),
    _Rule(
        "warmup head_init lr_head wd_head select clip patience accumulate recompute",
        _trained,
        "trainings; linear is solved at once",
    ),
    _Rule("merge_attention", lambda run: bool(run.get("merge")), "trainings with merge"),
    _Rule("crop_scale", lambda run: run["augment"] == "crop", "augment crop"),
)


def idle_settings(values: Mapping[str, Any]) -> dict[str, str]:
    """Setting → which runs it is for, of all that would do nothing in this run.

    Args:
        values: settings by name; those of the method that are missing are as `TuneConfig` has them.
    """
    runs = _runs(values)
    return {
        key: rule.of
        for rule in _RULES
        for key in rule.keys.split()
        if not any(rule.matter(run) for run in runs)
    }


def why_idle(values: Mapping[str, Any], given: Iterable[str]) -> list[str]:
    """A sentence for each setting that was given in vain.

    Args:
        values: of `idle_settings`.
        given: names of the settings that somebody chose; None is no choice.
    """
    idle, method = idle_settings(values), values.get("method", _USUAL["method"])
    return [
        f"{key} is {values[key]}, which does nothing with method {method} as it is set: it is for "
        f"{idle[key]}"
        for key in given
        if key in idle and values[key] is not None
    ]


def without_idle(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that matter, of some that are for several methods."""
    idle = idle_settings(values)
    return {key: value for key, value in values.items() if key not in idle}


def _runs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    run = {**_USUAL, **values}
    if run["method"] != "auto":
        return [run]
    methods = _OF_AUTO if run.get("budget") is None else _OF_AUTO_IN_A_BUDGET
    return [{**run, "method": method} for method in methods]
