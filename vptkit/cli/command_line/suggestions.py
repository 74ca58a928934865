"""What somebody meant by a command or an option that there is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["command_meant", "option_meant"]

# Words of other tools (and of everyday) → ours
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "train": ("tune",),
    "fit": ("tune",),
    "finetune": ("tune",),
    "learn": ("tune",),
    "predict": ("run",),
    "infer": ("run",),
    "inference": ("run",),
    "classify": ("run",),
    "detect": ("run", "devices detect"),
    "serve": ("run",),
    "val": ("eval",),
    "validate": ("eval",),
    "evaluate": ("eval",),
    "test": ("eval",),
    "score": ("eval",),
    "benchmark": ("profile",),
    "bench": ("profile",),
    "time": ("profile",),
    "measure": ("profile",),
    "latency": ("profile",),
    "convert": ("export", "build"),
    "compile": ("export", "build"),
    "onnx": ("export",),
    "quantize": ("export",),
    "quantise": ("export",),
    "fold": ("export",),
    "engine": ("build",),
    "trtexec": ("build", "profile"),
    "verify": ("check",),
    "compare": ("check",),
    "parity": ("check",),
    "info": ("inspect", "doctor"),
    "show": ("inspect", "devices show"),
    "describe": ("inspect",),
    "summary": ("inspect",),
    "env": ("doctor",),
    "checks": ("doctor",),
    "boards": ("devices",),
    "device": ("devices",),
    "models": ("backbones",),
    "list": ("devices list", "bank list"),
    "add": ("bank add",),
    "replace": ("bank replace",),
    "remove": ("bank remove",),
    "delete": ("bank remove",),
    "search": ("sweep",),
    "load": ("import",),
}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "imgsz": ("--image-size",),
    "img-size": ("--image-size",),
    "img": ("--image-size",),
    "input-size": ("--image-size",),
    "size": ("--image-size",),
    "resolution": ("--image-size",),
    "model": ("--backbone",),
    "arch": ("--backbone",),
    "pretrained": ("--weights",),
    "checkpoint": ("--weights",),
    "bs": ("--batch",),
    "epoch": ("--epochs",),
    "num-epochs": ("--epochs",),
    "learning-rate": ("--lr",),
    "lr0": ("--lr",),
    "weight-decay": ("--wd",),
    "num-prompts": ("--prompts",),
    "prompt-length": ("--prompts",),
    "outdir": ("--output",),
    "dest": ("--output",),
    "project": ("--output",),
    "overwrite": ("--force",),
    "exist-ok": ("--force",),
    "yes": ("--force",),
    "workers": ("--threads",),
    "num-threads": ("--threads",),
    "cores": ("--threads",),
    "gpu": ("--device", "--backend"),
    "cuda": ("--device", "--backend"),
    "provider": ("--backend",),
    "runtime": ("--backend",),
    "half": ("--precision",),
    "fp16": ("--precision",),
    "int8": ("--precision",),
    "dtype": ("--precision",),
    "quantize": ("--precision",),
    "calib": ("--calibration",),
    "topk": ("--top-k",),
    "k": ("--top-k",),
    "iterations": ("--rounds",),
    "repeat": ("--rounds",),
    "duration": ("--seconds",),
    "format-json": ("--json",),
    "csv": ("--save",),
    "host": ("--on",),
    "ssh": ("--on",),
    "patience-epochs": ("--patience",),
    "checkpointing": ("--recompute",),
    "activation-checkpointing": ("--recompute",),
    "gradient-checkpointing": ("--recompute",),
    "grad-checkpointing": ("--recompute",),
    "gradient-accumulation-steps": ("--accumulate",),
    "random-seed": ("--seed",),
}
_CUTOFF = 0.6
_MOST = 3


def command_meant(word: str, commands: Iterable[str], rest: Sequence[str]) -> list[str]:
    """Commands that fit a word that is none, the likeliest first.

    Args:
        word: what came.
        commands: those that there are here.
        rest: the words behind it.
    """
    known = list(commands)
    here = [w for w in _COMMANDS.get(word.lower(), ()) if w.split()[0] in known]
    if here:
        return here
    if word.endswith(".vptk"):
        return [w for w in (("run",) if rest else ("inspect", "run")) if w in known]
    if word.endswith(".safetensors"):
        return [w for w in ("export", "inspect") if w in known]
    close = _close(word.lower(), [*known, *_COMMANDS])
    near = [w for found in close for w in ((found,) if found in known else _COMMANDS[found])]
    near = [w for w in near if w.split()[0] in known]
    begun = [w for w in known if len(word) > 1 and w.startswith(word.lower())]
    if near or begun:
        return list(dict.fromkeys([*begun, *near]))[:_MOST]
    return ["tune"] if "tune" in known and _is_folder(word) else []


def option_meant(word: str, options: Iterable[str]) -> list[str]:
    """Options that fit one that is none, the likeliest first.

    Args:
        word: what came, with its dashes, up to a "=".
        options: the ones that are shown, as "--weights".
    """
    known = list(options)
    name = word.lstrip("-").lower().replace("_", "-")
    meant = [option for option in _OPTIONS.get(name, ()) if option in known]
    if meant:
        return meant
    long = [option for option in known if option.startswith("--")]
    if f"--{name}" in long:  # as -weights
        return [f"--{name}"]
    begun = [o for o in long if len(name) > 1 and o.startswith(f"--{name}")]
    within = [o for o in long if name in o[2:].split("-")]
    near = [f"--{found}" for found in _close(name, [option[2:] for option in long])]
    return list(dict.fromkeys([*begun, *within, *near]))[:_MOST]


def _close(word: str, words: list[str]) -> list[str]:
    import difflib  # for mistakes alone

    return difflib.get_close_matches(word, words, _MOST, _CUTOFF)


def _is_folder(word: str) -> bool:
    try:
        return word != "" and Path(word).is_dir()
    except (OSError, ValueError):
        return False
