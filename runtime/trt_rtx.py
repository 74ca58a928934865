"""The child process of `vptkit.runtime.oracle`: TensorRT-RTX builds one graph for one GPU kind.

No GPU is needed. A process of its own, because the library ends with a segmentation fault on some
graphs. `python -m vptkit.runtime.trt_rtx MODEL SM` writes the library's whole log to standard error
as it comes (so that the last node survives a crash) and one JSON document to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import tensorrt_rtx_bindings as trt

__all__ = ["build", "main"]

# Sizes of a free dimension, in most graphs the batch: smallest, most likely, largest
_PROFILE = (1, 8, 32)


class _Log(trt.ILogger):  # type: ignore[misc]
    """Passes every message on, unbuffered, as `SEVERITY: message`."""

    def log(self, severity: Any, message: str) -> None:
        os.write(2, f"{severity.name}: {message}\n".encode(errors="replace"))


def build(model: str, sm: int) -> dict[str, Any]:
    """Parse and build.

    Args:
        model: path of the ONNX file.
        sm: the target, as 86.

    Returns:
        {"stage": "done" or where it ended ("target", "parse", "build"), "version", "errors":
        [{"node", "operator", "message"}] of the parser, "plan_bytes", "parse_s", "build_s"}.
    """
    answer: dict[str, Any] = {
        "stage": "target",
        "version": trt.__version__,
        "errors": [],
        "plan_bytes": None,
        "parse_s": None,
        "build_s": None,
    }
    capability = getattr(trt.ComputeCapability, f"SM{sm}", None)
    if capability is None:
        known = sorted(n for n in dir(trt.ComputeCapability) if n[:2] == "SM" and n[2:].isdigit())
        message = f"TensorRT-RTX {trt.__version__} has no target SM{sm}, only {', '.join(known)}"
        return answer | {"errors": [{"node": None, "operator": None, "message": message}]}
    log = _Log()
    builder = trt.Builder(log)
    # by name: the flag's value is another one in TensorRT 10
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    start = time.perf_counter()
    parsed = parser.parse_from_file(model)
    answer |= {"stage": "parse", "parse_s": round(time.perf_counter() - start, 3)}
    if not parsed:
        return answer | {"errors": [_error(parser.get_error(i)) for i in range(parser.num_errors)]}
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, _config(builder, network, capability))
    answer |= {"stage": "build", "build_s": round(time.perf_counter() - start, 3)}
    return answer if plan is None else answer | {"stage": "done", "plan_bytes": plan.nbytes}


def _config(builder: Any, network: Any, capability: Any) -> Any:
    config = builder.create_builder_config()
    # puts the list of layers into the log: reading it off the engine would take a GPU
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1  # must come before the next line
    config.set_compute_capability(capability, 0)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if free:
        profile = builder.create_optimization_profile()
        for tensor in free:
            shapes = [tuple(n if d == -1 else d for d in tensor.shape) for n in _PROFILE]
            profile.set_shape(tensor.name, *shapes)
        config.add_optimization_profile(profile)
    return config


def _error(error: Any) -> dict[str, Any]:
    return {
        "node": error.node_name() or None,
        "operator": error.node_operator() or None,
        "message": error.desc(),
    }


def main() -> None:
    """MODEL SM on the command line → one JSON document."""
    sys.stdout.write(json.dumps(build(sys.argv[1], int(sys.argv[2]))) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
