"""The child process of a build: TensorRT or TensorRT-RTX makes an engine of a graph.

A process of its own, because the library ends with a segmentation fault on some graphs and because
its memory is given back for certain. This module as a program reads one JSON request, a line, from
standard input and writes JSON lines to standard output. It ends when its input is closed.

The request:
  library         "tensorrt" or "tensorrt_rtx"
  model           path of the ONNX file; null: say only which library and GPU are here
  plan            where to write the engine, or null
  sm              null: for this machine's GPU, which is asked for before TensorRT is loaded; or a
                  compute capability as 86: ahead of time, TensorRT-RTX only, no GPU needed
  profile         {input: [smallest, most likely, largest shape]}
  free            [1, 8, 32]: the same three for free dimensions of inputs that have no profile
  types           of the graph, as ["fp16"]: flags that TensorRT 8 needs, where graphs are not typed
  workspace_mb, optimization_level    null: the library's own
  tf32            let fp32 products drop mantissa bits
  timing_cache    a file to read, and to write afterwards; or null

The answer, each line with its "event":
  log     {"severity", "text"}; of the verbose messages only those that `layers` reads
  phase   {"name", "parent", "steps"}, step {"name"}, finish {"name"}: TensorRT >= 10
  tactic  {"count"}: kernels timed so far
  result  {"stage": "done" or where it ended ("target", "parse", "build"; "identity" without a
          model), "version", "gpu", "free_bytes" of it (without a model),
          "errors": [{"node", "operator", "message"}] of the parser,
          "plan_bytes", "inspector": the engine inspector's JSON or null, "parse_s", "build_s",
          "peak_rss_mb"}
  missing {"message"}: no such library, no GPU

TensorRT 8.6 to 11 and TensorRT-RTX from one code; where they differ, the name is asked for. Tried
with TensorRT-RTX 1.7 on a CPU only. Unverified: everything that needs a GPU, and TensorRT 8 to 11.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.atomic_files import atomic_file
from vptkit.devices.probes.memory import process_memory
from vptkit.errors import MissingError, OutputError
from vptkit.private_files import open_private
from vptkit.regular_files import read_bounded
from vptkit.runtime.backends.engine_seal import sealed_content, with_seal
from vptkit.runtime.backends.tensorrt_library import find_module, load

from .memory_forecast import free_on

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[..., None]

__all__ = ["build_plan", "main"]

_TACTIC_EVERY_S = 1.0
_MOST_TIMES = 1 << 30  # bytes of kernel times
# What `layers` reads of the parser's messages
_PARSED = ("Parsing node: ", "] inputs: ", "] outputs: ")
# Layers whose type TensorRT 8 does not let us choose
_UNTYPED = frozenset({"CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "CAST", "IDENTITY"})


def build_plan(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Parse and build.

    Args:
        request: see the module.
        say: told of each event, by keywords.

    Returns:
        The result, without its "event".

    Raises:
        MissingError: the library is not installed, or there is no GPU.
    """
    sm = request["sm"]
    trt, gpu = load(request["library"]) if sm is None else (find_module(request["library"]), None)
    answer: dict[str, Any] = {
        "stage": "identity",
        "version": trt.__version__,
        "gpu": None if gpu is None else gpu.to_json(),
        "errors": [],
        "plan_bytes": None,
        "inspector": None,
        "parse_s": None,
        "build_s": None,
        "peak_rss_mb": None,
    }
    if request["model"] is None:
        return answer | {"free_bytes": None if gpu is None else free_on(gpu)}
    wrong = _wrong_target(trt, sm)
    if wrong is not None:
        error = {"node": None, "operator": None, "message": wrong}
        return answer | {"stage": "target", "errors": [error]}
    logger = _make_logger(trt, say)
    # the builder's memory is free again before the engine is looked into
    plan = _build_plan(trt, logger, request, answer, say)
    _, answer["peak_rss_mb"] = process_memory()
    if plan is None:
        return answer
    if request["plan"] is not None:
        Path(request["plan"]).write_bytes(plan)
    answer |= {"stage": "done", "plan_bytes": plan.nbytes}
    if gpu is not None:
        answer["inspector"] = _inspected(trt, logger, plan)
    return answer


def _build_plan(
    trt: Any, logger: Any, request: dict[str, Any], answer: dict[str, Any], say: Say
) -> Any:
    """TensorRT's serialized engine, or None; the answer is told how far it came."""
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    start = time.perf_counter()
    parsed = parser.parse_from_file(request["model"])
    answer |= {"stage": "parse", "parse_s": round(time.perf_counter() - start, 3)}
    if not parsed:
        answer["errors"] = [_error(parser.get_error(i)) for i in range(parser.num_errors)]
        return None
    logger.parsing = False
    config = _config(trt, builder, network, request)
    monitor = _watch(trt, config, say)  # must outlive the build
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    answer |= {"stage": "build", "build_s": round(time.perf_counter() - start, 3)}
    if plan is not None and request["timing_cache"] is not None:
        _store_timing_cache(config, Path(request["timing_cache"]))
    del monitor
    return plan


# what differs between versions ---------------------------------------------------------------------


def _network_flags(trt: Any) -> int:
    """Typed by the graph where the library can: the flag's value is 1 in 10, 0 in 11."""
    flags = trt.NetworkDefinitionCreationFlag
    if hasattr(flags, "STRONGLY_TYPED"):
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH)


def _follow_types(trt: Any, network: Any, config: Any, types: list[str]) -> None:
    """TensorRT 8 chooses types itself: allow the graph's, and pin what the graph has in fp32.

    LayerNormalization needs no pin: its statistics are fp32 whatever the flags say.
    """
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return
    for name in types:
        flag = getattr(trt.BuilderFlag, name.upper(), None)
        if flag is not None:
            config.set_flag(flag)
    obey = getattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS", None)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    made = [(layer, layer.get_output(0)) for layer in layers if layer.num_outputs]
    if obey is None or not any(tensor.dtype == trt.DataType.HALF for _, tensor in made):
        return
    config.set_flag(obey)
    for layer, tensor in made:
        if tensor.dtype != trt.DataType.FLOAT or layer.type.name in _UNTYPED:
            continue
        if hasattr(layer, "precision"):
            layer.precision = trt.DataType.FLOAT
        if hasattr(layer, "set_output_type"):
            layer.set_output_type(0, trt.DataType.FLOAT)


def _wrong_target(trt: Any, sm: int | None) -> str | None:
    """Why no engine for this kind of GPU can be built ahead of time."""
    if sm is None:
        return None
    if not hasattr(trt, "ComputeCapability"):
        return "TensorRT builds for the GPU it runs on; ahead of time only TensorRT-RTX does"
    known = [n for n in dir(trt.ComputeCapability) if n[:2] == "SM" and n[2:].isdigit()]
    if f"SM{sm}" in known:
        return None
    listed = ", ".join(sorted(known, key=lambda name: int(name[2:])))
    return f"TensorRT-RTX {trt.__version__} has no target SM{sm}, only {listed}"


def _watch(trt: Any, config: Any, say: Say) -> Any:
    """Report phases and steps, where the library can (TensorRT >= 10)."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            say("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            say("step", name=phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            say("finish", name=phase_name)

    monitor = Monitor()
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor
    return monitor


# the same everywhere ---------------------------------------------------------------------------------


def _config(trt: Any, builder: Any, network: Any, request: dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    # so that the inspector, or without a GPU the log, tells the layers
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(trt, "ComputeCapability"):  # TensorRT-RTX
        sm = request["sm"]
        config.num_compute_capabilities = 1  # must come before the next line
        target = "CURRENT" if sm is None else f"SM{sm}"
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    if request["workspace_mb"] is not None:
        size = request["workspace_mb"] * 2**20
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    if request["optimization_level"] is not None:
        config.builder_optimization_level = request["optimization_level"]
    if request["tf32"]:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on by default
    _follow_types(trt, network, config, request["types"])
    _add_profile(builder, network, config, request)
    if request["timing_cache"] is not None:
        _load_timing_cache(config, Path(request["timing_cache"]))
    return config


def _add_profile(builder: Any, network: Any, config: Any, request: dict[str, Any]) -> None:
    free = [network.get_input(i) for i in range(network.num_inputs)]
    free = [tensor for tensor in free if -1 in tuple(tensor.shape)]
    if not free:
        return
    profile = builder.create_optimization_profile()
    for tensor in free:
        shapes = request["profile"].get(tensor.name) or [
            [size if d == -1 else d for d in tensor.shape] for size in request["free"]
        ]
        profile.set_shape(tensor.name, *(tuple(shape) for shape in shapes))
    config.add_optimization_profile(profile)


def _load_timing_cache(config: Any, path: Path) -> None:
    """Start from what was timed before, or anew if the library does not take that."""
    for content in (_kept_times(path), b""):
        timing_cache = config.create_timing_cache(content)
        if timing_cache is not None and config.set_timing_cache(timing_cache, False):
            return


def _kept_times(path: Path) -> bytes:
    """What an earlier build of this user left; the library is fed nothing else."""
    try:
        with open_private(path.parent, path.name, OutputError) as stream:
            whole = read_bounded(stream, path, OutputError, limit=_MOST_TIMES)
    except OutputError:  # none yet, or somebody else's
        return b""
    return sealed_content(whole, path.name) or b""


def _store_timing_cache(config: Any, path: Path) -> None:
    timing_cache = config.get_timing_cache()
    if timing_cache is None:
        return
    content = with_seal(bytes(timing_cache.serialize()), path.name)
    # the engine is what counts
    with contextlib.suppress(OutputError), atomic_file(path, mode=0o600) as part:
        part.write_bytes(content)


def _inspected(trt: Any, logger: Any, plan: Any) -> str | None:
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _error(parser_error: Any) -> dict[str, Any]:
    if not hasattr(parser_error, "node_name"):  # TensorRT 8.6: only the node's number
        return {"node": str(parser_error.node()), "operator": None, "message": parser_error.desc()}
    node, operator = parser_error.node_name(), parser_error.node_operator()
    return {"node": node or None, "operator": operator or None, "message": parser_error.desc()}


def _make_logger(trt: Any, say: Say) -> Any:
    """Passes messages on. Verbose ones come by the hundred thousand, so most only count."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.parsing = True
            self.tactics, self.told = 0, time.monotonic()

        def log(self, severity: Any, message: str) -> None:
            if severity.name != "VERBOSE" or self.wanted(message):
                say("log", severity=severity.name, text=message)
            elif "Tactic" in message and "Time:" in message:
                self.tactics += 1
                if time.monotonic() - self.told >= _TACTIC_EVERY_S:
                    self.told = time.monotonic()
                    say("tactic", count=self.tactics)

        def wanted(self, message: str) -> bool:
            if self.parsing:
                return any(mark in message for mark in _PARSED)
            return message.startswith("Layers:")

    return Logger()


# the conversation ----------------------------------------------------------------------------------


def main() -> None:
    """One request on standard input, events on standard output."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the library does not unwind
    # what the library itself prints must not come between the lines
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields})
        with lock:
            stream.write(line + "\n")
            stream.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        say("result", **build_plan(request, say))
    except MissingError as error:
        say("missing", message=str(error))


def _end_with_parent() -> None:
    while os.read(0, 4096):  # unbuffered: nobody may hold the buffer's lock when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
