"""One model's `config.pbtxt`: Triton's ModelConfig as protobuf's text.

Fields as of triton-inference-server/common protobuf/model_config.proto. The batch is never among the
dims: `max_batch_size` puts it before them, so a value of one number for each image has the dims [1]
and is reshaped to none; clients send [B, 1], and the graph gets [B].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Batching", "Raw", "Step", "Tensor", "ensemble_config", "model_config", "warm_up"]

_WARMED = "images"  # what a sample for warming up is called


class Raw(str):
    """A word of the schema, as KIND_CPU: not quoted."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output.

    Attributes:
        name: of the tensor.
        kind: Triton's name of the type without "TYPE_", as FP32 or STRING.
        dims: without the batch; () of one value for each image.
        optional: a request may leave it out.
        labels: file with one label a line, for Triton's classification extension; or None.
    """

    name: str
    kind: str
    dims: tuple[int, ...] = ()
    optional: bool = False
    labels: str | None = None

    def message(self) -> dict[str, Any]:
        """As the schema has it."""
        found: dict[str, Any] = {"name": self.name, "data_type": Raw(f"TYPE_{self.kind}")}
        found["dims"] = list(self.dims) or [1]
        if not self.dims:
            found["reshape"] = {"shape": []}
        if self.optional:
            found["optional"] = True
        if self.labels is not None:
            found["label_filename"] = self.labels
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How requests become batches.

    Attributes:
        max_batch: images of one run, at most.
        delay_us: how long an image waits for others, microseconds.
        queue: requests that may wait; others are refused at once. 0: any number.
        timeout_us: how long a request may wait, microseconds. 0: for ever.
        instances: copies of the model that run at the same time.
        kind: where they run: "KIND_AUTO", "KIND_CPU" or "KIND_GPU".
    """

    max_batch: int = 8
    delay_us: int = 2000
    queue: int = 256
    timeout_us: int = 10_000_000
    instances: int = 1
    kind: str = "KIND_CPU"

    def __post_init__(self) -> None:
        """Refuse what Triton would.

        Raises:
            VptkitError: a number is out of its range.
        """
        for name, least in (("max_batch", 1), ("instances", 1), ("delay_us", 0), ("queue", 0)):
            if getattr(self, name) < least:
                raise VptkitError(f"{name} is {getattr(self, name)}, expected at least {least}")

    def message(self) -> dict[str, Any]:
        """The dynamic batcher, as the schema has it."""
        policy = {
            "timeout_action": Raw("REJECT"),
            "default_timeout_microseconds": self.timeout_us,
            "max_queue_size": self.queue,
        }
        return {"max_queue_delay_microseconds": self.delay_us, "default_queue_policy": policy}

    def group(self) -> list[dict[str, Any]]:
        """The instances, as the schema has them; a server has one GPU, as a session has."""
        gpus = {"gpus": [0]} if self.kind == "KIND_GPU" else {}
        return [{"kind": Raw(self.kind), "count": self.instances, **gpus}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model of an ensemble; names in the model → names in the ensemble."""

    model: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def message(self) -> dict[str, Any]:
        """As the schema has it."""
        maps = {
            key: [{"key": name, "value": value} for name, value in names.items()]
            for key, names in (("input_map", self.inputs), ("output_map", self.outputs))
        }
        return {"model_name": self.model, "model_version": -1, **maps}


def model_config(
    runs_on: Mapping[str, str],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    batching: Batching,
    *,
    warmed: Sequence[Tensor] = (),
    parameters: Mapping[str, str] | None = None,
) -> str:
    """The text of a model that a backend runs.

    Args:
        runs_on: {"backend": NAME} or {"platform": NAME}.
        inputs, outputs: of the model.
        batching: how requests become batches.
        warmed: inputs that are given zeros before the first request; none: no warm-up.
        parameters: for the backend.
    """
    message: dict[str, Any] = {
        **runs_on,
        "max_batch_size": batching.max_batch,
        "input": [tensor.message() for tensor in inputs],
        "output": [tensor.message() for tensor in outputs],
        "dynamic_batching": batching.message(),
        "instance_group": batching.group(),
    }
    if warmed:
        message["model_warmup"] = warm_up(warmed, batching.max_batch)
    message["parameters"] = [
        {"key": key, "value": {"string_value": value}} for key, value in (parameters or {}).items()
    ]
    return _text(message)


def warm_up(inputs: Sequence[Tensor], max_batch: int) -> list[dict[str, Any]]:
    """Samples of zeros: one image, and a full batch, as memory and kernels differ."""
    zeros = [
        {
            "key": tensor.name,
            "value": {
                "data_type": Raw(f"TYPE_{tensor.kind}"),
                "dims": list(tensor.dims) or [1],
                "zero_data": True,
            },
        }
        for tensor in inputs
    ]
    return [
        {"name": f"{_WARMED}_{size}", "batch_size": size, "inputs": zeros}
        for size in sorted({1, max_batch})
    ]


def ensemble_config(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], steps: Sequence[Step], max_batch: int
) -> str:
    """The text of a model that hands tensors from one model to the next."""
    return _text(
        {
            "platform": "ensemble",
            "max_batch_size": max_batch,
            "input": [_of_ensemble(tensor) for tensor in inputs],
            "output": [_of_ensemble(tensor) for tensor in outputs],
            "ensemble_scheduling": {"step": [step.message() for step in steps]},
        }
    )


def _of_ensemble(tensor: Tensor) -> dict[str, Any]:
    """Without reshape: an ensemble passes on what the models take and give, which is [B, 1]."""
    return {key: value for key, value in tensor.message().items() if key != "reshape"}


def _text(message: Mapping[str, Any], indent: str = "") -> str:
    """Protobuf's text format: a field a line, lists as repeated fields, numbers in brackets."""
    lines = ["# Written by vptkit serve --triton"] if not indent else []
    for key, value in message.items():
        if isinstance(value, list) and all(isinstance(one, int) for one in value):
            lines.append(f"{indent}{key}: {value}")
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                inner = _text(one, f"{indent}  ")
                lines.append(f"{indent}{key} {{\n{inner}{indent}}}")
            else:
                lines.append(f"{indent}{key}: {_scalar(one)}")
    return "".join(f"{line}\n" for line in lines)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Raw)):
        return str(value)
    escaped = str(value).encode("ascii", "backslashreplace").decode()
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
