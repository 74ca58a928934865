"""Where a tuning computes, and in which precision.

Mixed precision is the frozen backbone's alone: `torch.autocast` runs its matrix products in half
precision. Prompts, tuned LayerNorm parameters, the head, the loss and all of AdamW stay in float32.

On the CPU the same run gives the same bytes. On a GPU `repeatable` asks torch for deterministic
algorithms, which promises the same bytes on the same GPU with the same versions, for some speed;
it says nothing about another GPU, or the CPU. Unverified: everything that names CUDA here was
written without a GPU at hand.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from typing import TYPE_CHECKING

import torch

from vptkit.errors import MissingError, TargetError, VptkitError

from .distributed import started_by_torchrun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vptkit.tune.config import TuneConfig
    from vptkit.tune.methods.tuned_model import Tuned

__all__ = ["choose_device", "describe_device", "device_of", "place", "repeatable"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str) -> torch.device:
    """The device to compute on.

    Args:
        wanted: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N". Of the processes of
            torchrun, "auto" and "cuda" give each its own GPU.

    Raises:
        VptkitError: another word, or one GPU named for several processes.
        MissingError: no such GPU here.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise VptkitError(f"device is {wanted!r}, expected auto, cpu, cuda or cuda:N, as cuda:1")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    several = started_by_torchrun() and int(os.environ["WORLD_SIZE"]) > 1
    if several and ":" in wanted:
        raise VptkitError(
            f"device is {wanted}, but torchrun started {os.environ['WORLD_SIZE']} processes, and "
            "each needs a GPU of its own: pass --device cuda (choose with CUDA_VISIBLE_DEVICES)"
        )
    if not torch.cuda.is_available():
        built = "built without CUDA" if torch.version.cuda is None else "finds no GPU and driver"
        raise MissingError(
            f"device is {wanted}, but torch {torch.__version__} {built}. Pass --device cpu, or see "
            "`vptkit doctor`."
        )
    index = int(os.environ["LOCAL_RANK"]) if several else int(wanted.partition(":")[2] or 0)
    found = torch.cuda.device_count()
    if index >= found:
        remedy = f"start torchrun with --nproc-per-node {found}" if several else "pass another"
        raise MissingError(f"device cuda:{index} is not here, torch finds {found}: {remedy}")
    return torch.device("cuda", index)


def describe_device(device: torch.device) -> str:
    """As a person reads it: "cpu", "cuda:0 (NVIDIA H200)"."""
    if device.type == "cpu":
        return "cpu"
    return f"{device} ({torch.cuda.get_device_name(device)})"


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the parameters of a model are."""
    return next(model.parameters()).device


def place(tuned: Tuned, device: torch.device, config: TuneConfig) -> None:
    """Move a model to its device; from here on it computes as the configuration says.

    Raises:
        MissingError: `compile` needs a compiler that is not here.
        TargetError: the GPU has no bf16.
    """
    tuned.to(device)
    tuned.backbone.to(device)
    if config.precision != "fp32":
        if config.precision == "bf16" and device.type == "cuda":
            _require_bf16(device)
        half = _HALF[config.precision]
        tuned.autocast = functools.partial(torch.autocast, device.type, dtype=half)
    if config.compile:
        _require_compiler(device)
        tuned.compute = torch.compile(tuned.compute)


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU: deterministic algorithms while the block runs. An operation without one raises."""
    if device.type == "cpu":
        yield
        return
    # Read when cuBLAS starts on this device; its default workspace makes sums depend on streams.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False  # which would choose by measured time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before[0])
        torch.backends.cudnn.benchmark = before[1]


def _require_bf16(device: torch.device) -> None:
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:  # torch would imitate it, slower than fp32
        raise TargetError(
            f"precision is bf16, but {torch.cuda.get_device_name(device)} (compute capability "
            f"{major}.{minor}) has none, it begins at 8.0: pass --precision fp16"
        )


def _require_compiler(device: torch.device) -> None:
    """Compile one line, so that a missing compiler is named before the training starts."""
    from torch._dynamo.exc import TorchDynamoException

    # Each kind of batch (its size, with gradients or without) is compiled anew. Beyond a limit, 8
    # unless told, torch would go on uncompiled with no more than a warning. (Names of torch 2.6,
    # which later ones still know.)
    settings = torch._dynamo.config  # noqa: SLF001 - torch has no other name for it
    settings.cache_size_limit, settings.fail_on_cache_limit_hit = 64, True
    try:
        torch.compile(_one_line)(torch.ones(2, device=device))
    except (TorchDynamoException, RuntimeError, ImportError) as error:
        tool = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        reason = " ".join(str(error).split())[:300]
        raise MissingError(
            f"compile: torch.compile does not work here: {reason}. On {device.type} it needs "
            f"{tool}. Install what is missing, or leave --compile away."
        ) from error


def _one_line(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1
