"""The engines of `latency_gpu.py`: built in child processes, opened side by side.

torch is the allocator and captures the CUDA graphs. TensorRT and TensorRT-RTX share what is used.

    python tests/benchmarks/gpu_engines.py MODEL.onnx OUT.engine
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vptkit.runtime.engine_build.build_worker import _follow_types, _network_flags

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
PIXELS = "pixels"
Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something to time; `burst` may replay a CUDA graph, `call` never does unless it has to."""

    name: str
    call: Call
    burst: Call
    logits: torch.Tensor
    built: str = ""


def tensorrt() -> Any:
    """TensorRT's bindings under the first of their names that is installed, or None."""
    for name in MODULES:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    return None


def build(onnx: Path, plan: Path) -> None:
    """Write an engine for this machine's GPU; prints what the log tells about its layers."""
    trt = tensorrt()

    class Log(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity, message))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    blob = None
    if parser.parse_from_file(str(onnx)):
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if hasattr(trt, "ComputeCapability"):  # TensorRT-RTX
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
        _follow_types(trt, network, config, ["fp16"])  # of TensorRT 8, which chooses types itself
        blob = builder.build_serialized_network(network, config)
    if blob is None:
        severe = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
        sys.exit("; ".join(text for severity, text in log.lines if severity in severe)[:2000])
    plan.write_bytes(bytes(blob))
    layers = re.findall(r"Name: (\S+), LayerType", "\n".join(text for _, text in log.lines))
    fused = sum("mha" in name for name in layers)
    print(json.dumps({"layers": len(layers), "fused": fused, "bytes": plan.stat().st_size}))


def built(paths: dict[str, Path]) -> dict[str, tuple[Path, str]]:
    """Label → engine file and a word on it. Child processes: a builder may crash on a graph."""

    def one(path: Path) -> tuple[Path, str]:
        plan = path.with_suffix(".engine")
        command = [sys.executable, __file__, str(path), str(plan)]
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            return plan, f"FAILED ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}"
        found = json.loads(done.stdout.splitlines()[-1])
        seconds = time.perf_counter() - begun
        return plan, f"{found['layers']} / {found['fused']}, {seconds:.0f} s"

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(paths, pool.map(one, paths.values()), strict=True))


class Engines:
    """Opens engine files; all of them share one runtime and one stream."""

    def __init__(self) -> None:
        self.trt = tensorrt()
        self.runtime = self.trt.Runtime(self.trt.Logger(self.trt.Logger.ERROR))
        self.stream = torch.cuda.Stream()
        self.kept: list[Any] = []  # what the GPU still reads must not be freed

    def open(
        self, name: str, plan: Path, word: str, images: torch.Tensor, pixels: torch.Tensor
    ) -> Candidate:
        """Bind device-resident tensors and capture a CUDA graph.

        Args:
            name, word: of the candidate, and what is known of its build.
            plan: the engine file, built on this machine.
            images: uint8 [B, H, W, 3].
            pixels: float32 [B, 3, H, W], the same images normalised.

        Raises:
            RuntimeError: the engine does not load, or does not run.
        """
        engine = self.runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise RuntimeError(f"{name}: the engine does not load")
        context = engine.create_execution_context()
        low = engine.get_tensor_dtype("logits") == self.trt.DataType.HALF
        logits = torch.full(
            tuple(engine.get_tensor_shape("logits")),
            torch.nan,  # what the engine does not write must not pass for an answer
            dtype=torch.float16 if low else torch.float32,
            device="cuda",
        )
        held = {"images": images, "logits": logits}
        typed = engine.get_tensor_dtype(PIXELS) if PIXELS in _names(engine) else None
        held[PIXELS] = pixels.half() if typed == self.trt.DataType.HALF else pixels
        for tensor in _names(engine):
            context.set_tensor_address(tensor, held[tensor].data_ptr())
        self.kept.append((engine, context, held))
        stream = self.stream

        def enqueue() -> None:
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError(f"{name}: the engine does not run")

        for _ in range(5):
            enqueue()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            enqueue()
        return Candidate(name=name, call=enqueue, burst=graph.replay, logits=logits, built=word)


def _names(engine: Any) -> list[str]:
    return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
