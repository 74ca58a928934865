"""TensorRT's own opinion of a graph, on a machine without a GPU.

TensorRT-RTX builds engines ahead of time on a CPU. It is not the TensorRT of a Jetson (other
targets, another compiler version), but it reads the same graphs by the same rules.
"""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vptkit.devices.probes.memory import free_memory
from vptkit.errors import MissingError, MissingExtraError, VptkitError

from .engine_layers import Structure, bytes_of, last_node, located, messages, structure
from .worker_process import converse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SMS", "Opinion", "ask_oracle"]

SMS = (86, 89, 120)  # an Orin's nearest relative (8.7 is no target), Ada, Blackwell
_PACKAGES = {
    "tensorrt_rtx_bindings": "tensorrt-rtx-cu13-bindings",
    "tensorrt_rtx_libs": "tensorrt-rtx-cu13-libs",
}
# A build's peak memory over the graph's size, and without a graph: ViT-B 176 MB → 0.86 GB,
# ViT-L 614 MB → 2.25 GB (TensorRT-RTX 1.7.1)
_GROWTH, _FLOOR = 4.0, 400 * 2**20
_FREE = (1, 8, 32)  # smallest, most likely and largest size of a free dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What TensorRT-RTX made of a graph for one kind of GPU.

    Attributes:
        sm: compute capability, as 86.
        stage: "done", or where it ended: "start", "target", "parse", "build", "crash", "timeout".
        version: of TensorRT-RTX; None after a crash.
        errors: {"node", "operator", "message"}, node as in the graph or None.
        structure: the layers; None unless done.
        plan_bytes, weights_bytes, activation_bytes: of the engine; None unless done.
        parse_s, build_s: seconds; None where it did not come to that.
    """

    sm: int
    stage: str
    version: str | None = None
    errors: tuple[dict[str, str | None], ...] = ()
    structure: Structure | None = None
    plan_bytes: int | None = None
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    parse_s: float | None = None
    build_s: float | None = None

    @property
    def ok(self) -> bool:
        """An engine was built."""
        return self.stage == "done"

    def to_json(self, *, layers: bool = False) -> dict[str, Any]:
        """As `vptkit check --oracle --json` prints it; `layers` adds every layer."""
        document: dict[str, Any] = {
            "sm": self.sm,
            "ok": self.ok,
            "stage": self.stage,
            "errors": list(self.errors),
            "plan_bytes": self.plan_bytes,
            "weights_bytes": self.weights_bytes,
            "activation_bytes": self.activation_bytes,
            "parse_s": self.parse_s,
            "build_s": self.build_s,
            "structure": None if self.structure is None else self.structure.to_json(),
        }
        if layers and self.structure is not None:
            document["layer_list"] = [layer.to_json() for layer in self.structure.layers]
        return document


def ask_oracle(model: Path, sms: Sequence[int] = SMS, *, timeout_s: float = 900.0) -> list[Opinion]:
    """Build a graph for each kind of GPU, each in a process of its own.

    Free dimensions get the profile 1, 8, 32.

    Args:
        model: the ONNX file.
        sms: compute capabilities, as 86.
        timeout_s: for each build.

    Returns:
        One opinion each, in the same order; whatever becomes of a build is an opinion too.

    Raises:
        MissingExtraError: TensorRT-RTX is not installed.
        MissingError: it is, but does not load.
        VptkitError: there is no such file.
    """
    for module, package in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, "trt-rtx", "the oracle trt-rtx")
    if not model.is_file():
        raise VptkitError(f"{model}: no such file, expected an ONNX graph")
    with ThreadPoolExecutor(max_workers=_workers(model, len(sms))) as pool:
        return list(pool.map(lambda sm: _opinion(model, sm, timeout_s), sms))


def _workers(model: Path, wanted: int) -> int:
    """Builds at a time: what cores and free memory allow, one at least."""
    size = sum(file.stat().st_size for file in model.parent.glob(f"{model.name}*"))
    room = int((free_memory() or 0) // (_FLOOR + _GROWTH * size))
    return max(1, min(wanted, len(os.sched_getaffinity(0)), room))


def _opinion(model: Path, sm: int, timeout_s: float) -> Opinion:
    request: dict[str, Any] = {
        "library": "tensorrt_rtx",
        "model": str(model.absolute()),
        "plan": None,
        "sm": sm,
        "profile": {},
        "free": _FREE,
        "types": [],
        "workspace_mb": None,
        "optimization_level": None,
        "tf32": True,
        "timing_cache": None,
    }
    outcome = converse(request, timeout_s=timeout_s)
    if outcome.missing is not None:
        raise MissingError(outcome.missing)
    if outcome.result is not None:
        return _judged(sm, outcome.result, outcome.log)
    stage, message = outcome.ended or ("start", "no answer")
    node, operator = last_node(outcome.log) or (None, None)
    error = {"node": node, "operator": operator, "message": message}
    return Opinion(sm=sm, stage=stage, errors=(error,))


def _judged(sm: int, answer: dict[str, Any], log: str) -> Opinion:
    errors = list(answer["errors"])
    if answer["stage"] == "build":
        found = structure(log)
        errors += [
            located(text, found.operators) for text in messages(log, "ERROR", "INTERNAL_ERROR")
        ]
    done = answer["stage"] == "done"
    return Opinion(
        sm=sm,
        stage=answer["stage"],
        version=answer["version"],
        errors=tuple(errors),
        structure=structure(log) if done else None,
        plan_bytes=answer["plan_bytes"],
        weights_bytes=bytes_of(log, "Weights") if done else None,
        activation_bytes=bytes_of(log, "Activation") if done else None,
        parse_s=answer["parse_s"],
        build_s=answer["build_s"],
    )
