"""A bundle's graph in a TensorRT engine: one context, one stream, buffers that stay where they are.

Images cross the bus once, through page-locked memory; on a board whose GPU shares its memory with
the processor they do not cross anything (zero copy). The launch is captured in a CUDA graph as soon
as three runs in a row have the same shapes. Nothing here was run on a GPU yet: the tests run it on a
driver and an engine of their own (tests/fakes).
"""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from vptkit.devices.drivers.cuda import open_device
from vptkit.errors import MissingError, TargetError

from .engine_cache import open_engine
from .graph_protocol import Times
from .tensorrt_library import load, make_context, make_profiler, nptype, reasons, the_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from vptkit.devices.drivers.cuda import CudaGraph, Device, DeviceMemory, HostMemory
    from vptkit.formats.bundle import Bundle

__all__ = ["TrtGraph"]

# Runs of the same shapes before a launch is captured. A large batch that goes in portions repeats
# its shapes once in each call, which is not worth a capture.
_REPEATS = 2


@dataclass(slots=True)
class _Port:
    """An input or output of the engine that is filled anew in every run.

    `device` is None where the GPU reads and writes the host's memory itself.
    """

    type: np.dtype[Any]
    limit: tuple[int, ...]  # the largest shape
    host: HostMemory
    device: DeviceMemory | None
    view: NDArray[np.uint8] = field(repr=False)

    @property
    def address(self) -> int:
        return self.host.address if self.device is None else self.device.address

    def array(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """The host's side, as an array of some shape."""
        count = int(np.prod(shape))
        return self.view[: count * self.type.itemsize].view(self.type).reshape(shape)


@dataclass(frozen=True, slots=True)
class _Table:
    """A bank's table on the device."""

    shape: tuple[int, ...]
    memory: DeviceMemory


class TrtGraph:
    """An engine, ready to run. May be called from several threads; they take turns.

    Attributes:
        threads: 1, the one that waits for the GPU.
        versions: of TensorRT and of the driver.
        cuda_graph: launches are to be captured and replayed; turns False, with a warning, if the
            engine cannot be captured.
        replayed: all launches of the last run were replayed. TensorRT-RTX captures by itself and
            does not tell: there, all had the shapes of runs before them.
        transfers: what a run moves between host and device, in words.
        record: what the engine cache knows of the engine.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        library: str = "tensorrt",
        cuda_graph: bool = True,
        trust_engines: bool = False,
    ) -> None:
        """Load the engine of this machine.

        Args:
            bundle: the bundle.
            library: "tensorrt" or "tensorrt_rtx".
            cuda_graph: see the class.
            trust_engines: engines that this user did not build here count too.

        Raises:
            MissingError: no GPU, no TensorRT, or no engine that was built for both.
            TargetError: the engine does not load, its inputs differ from the manifest, or the
                device has too little memory.
        """
        trt, gpu = load(library)
        built, plan = open_engine(
            bundle, library=library, version=trt.__version__, gpu=gpu, trust=trust_engines
        )
        self.record: Mapping[str, Any] = built.record
        self.threads = 1
        self.versions: Mapping[str, str] = {
            library: trt.__version__,
            "cuda_driver": "{}.{}".format(*gpu.driver),
        }
        self.cuda_graph, self.replayed = cuda_graph, False
        self._bundle, self._lock = bundle, threading.Lock()
        self._trt: Any = trt
        self._profiler: Any = None
        self._logger = the_logger(trt)
        with plan:
            self._device = open_device(gpu)
            self._runtime, self._engine = _deserialize(trt, self._logger, plan, built.path)
        self._context, self._ours = make_context(trt, self._engine, cuda_graph=cuda_graph)
        if self._context is None:
            raise self._failed("no execution context, mostly for lack of memory")
        self._captures = cuda_graph and self._ours
        self._stream = self._device.stream()
        self._events = self._device.event(), self._device.event()
        self._types, self._limits, self._least = _signature(trt, self._engine, bundle)
        self._input, self._outputs = bundle.input, bundle.outputs
        self._ports = {
            name: _port(self._device, self._types[name], self._limits[name])
            for name in self._types
            if not name.startswith("bank.")
        }
        self._bound: dict[str, tuple[tuple[int, ...], int]] = {}
        self._captured: CudaGraph | None = None
        self._repeats = 0

    @property
    def transfers(self) -> str:
        """What a run moves between host and device."""
        if self._device.gpu.integrated:
            return "none: the GPU reads and writes the host's page-locked memory (zero copy)"
        sizes = {name: port.array(port.limit[1:]).nbytes for name, port in self._ports.items()}
        out = sum(sizes.pop(name) for name in self._outputs)
        return f"{sum(sizes.values())} bytes in, {out} out per image, by page-locked copies"

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """One batch of the bundle's input → its first output, float32 [B, C] or [B, f].

        Batches larger than the engine takes go in portions, smaller ones are filled up.

        Raises:
            TargetError: the GPU failed.
        """
        return self._in_portions({self._input: batch}, {})[self._outputs[0]]

    def answers(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """One batch of the bundle's input → all outputs by name; see a call.

        Raises:
            TargetError: the GPU failed.
        """
        return self._in_portions({self._input: batch}, {})

    def portions(self, count: int) -> int:
        """How many runs of the engine a batch takes."""
        return max(-(-count // self._most), 1)

    def table_types(self) -> dict[str, np.dtype[Any]]:
        """Types of a bank's tables, which the graph's precision decides."""
        return {name: kind for name, kind in self._types.items() if name.startswith("bank.")}

    def resident(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tables copied to the device, once for many calls.

        Raises:
            TargetError: more adapters than the engine was built for, or out of memory.
        """
        with self._lock:
            self._device.use()
            return {name: self._upload(name, table) for name, table in tables.items()}

    def look_up(
        self, batch: NDArray[Any], adapter: NDArray[np.int32], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        """One batch of a bank: its input, a row number for each image, `resident` tables.

        Returns:
            All outputs by name.

        Raises:
            TargetError: the GPU failed.
        """
        feed = {self._input: batch, "adapter": adapter}
        return self._in_portions(feed, tables)

    def timed(
        self,
        batch: NDArray[Any],
        *,
        adapter: NDArray[np.int32] | None = None,
        tables: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> tuple[NDArray[np.float32], Times]:
        """Run a batch twice, and take the time of its parts.

        The first run goes from host to host: `end_to_end`, and within it `enqueue` (the processor's
        share) and `gpu` (events right before and after the launch). The second starts with the data
        on the device and leaves the answer there: `host`.

        Args:
            batch, adapter, tables: as for a call, or for `look_up`.
            clock: seconds; only differences count.

        Raises:
            TargetError: the GPU failed, or the batch does not go in one portion.
        """
        feed = {self._input: batch} | ({} if adapter is None else {"adapter": adapter})
        if not self._least <= len(batch) <= self._most:
            raise TargetError(
                f"a batch of {len(batch)} came, the engine takes {self._least} to {self._most}"
            )
        with self._lock:
            self._device.use()
            self.replayed = self.cuda_graph
            before, after = self._events
            start = clock()
            self._bind(feed, tables or {})
            self._send(feed)
            self._stream.record(before)
            enqueued = clock()
            self._launch()
            enqueue = clock() - enqueued
            self._stream.record(after)
            answers = self._receive(len(batch))
            end_to_end = clock() - start
            start = clock()
            self._launch()
            self._stream.wait()
            host = clock() - start
            gpu = after.ms_since(before)
        times = Times(
            enqueue=1000 * enqueue, gpu=gpu, host=1000 * host, end_to_end=1000 * end_to_end
        )
        return answers[self._outputs[0]], times

    def profile_layers(self) -> list[tuple[str, float]]:
        """From now on runs add (layer, milliseconds) to this list; open it without CUDA graphs for that."""
        with self._lock:
            self._profiler = make_profiler(self._trt)
            self._context.profiler = self._profiler
            times: list[tuple[str, float]] = self._profiler.times
            return times

    def layer_information(self) -> str:
        """The engine inspector's JSON of all layers."""
        inspector = self._engine.create_engine_inspector()
        found = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return str(found)

    @property
    def _most(self) -> int:
        return self._limits[self._input][0]

    def _in_portions(
        self, feed: Mapping[str, NDArray[Any]], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        count = len(feed[self._input])
        parts: list[dict[str, NDArray[np.float32]]] = []
        with self._lock:
            self._device.use()
            self.replayed = self.cuda_graph and count > 0
            for i in range(0, count, self._most):
                portion = {name: value[i : i + self._most] for name, value in feed.items()}
                parts.append(self._run(portion, tables))
        if len(parts) == 1:
            return parts[0]
        none = {n: np.empty((0, *self._limits[n][1:]), np.float32) for n in self._outputs}
        return {n: np.concatenate([none[n], *(p[n] for p in parts)]) for n in self._outputs}

    def _run(
        self, feed: Mapping[str, NDArray[Any]], tables: Mapping[str, Any]
    ) -> dict[str, NDArray[np.float32]]:
        count = len(feed[self._input])
        if count < self._least:
            spare = self._least - count
            feed = {k: np.concatenate([v, np.repeat(v[-1:], spare, 0)]) for k, v in feed.items()}
        self._bind(feed, tables)
        self._send(feed)
        self._launch()
        found = self._receive(max(count, self._least))
        return {name: value[:count] for name, value in found.items()}

    def _bind(self, feed: Mapping[str, NDArray[Any]], tables: Mapping[str, Any]) -> None:
        """Tell the context shapes and addresses, where they differ from the last run's."""
        context = self._context
        wanted = {name: (value.shape, self._ports[name].address) for name, value in feed.items()}
        wanted |= {name: (table.shape, table.memory.address) for name, table in tables.items()}
        if wanted == self._bound:
            self._repeats += 1
            return
        self._captured, self._bound, self._repeats = None, {}, 0
        for name, (shape, address) in wanted.items():
            if not context.set_input_shape(name, shape):
                raise self._failed(f"{name} {list(shape)} was refused")
            context.set_tensor_address(name, address)
        for name in self._outputs:
            context.set_tensor_address(name, self._ports[name].address)
        self._bound = wanted

    def _send(self, feed: Mapping[str, NDArray[Any]]) -> None:
        for name, value in feed.items():
            port = self._ports[name]
            np.copyto(port.array(value.shape), value, casting="no")
            if port.device is not None:
                self._stream.upload(port.device, port.host, value.nbytes)

    def _launch(self) -> None:
        """Enqueue; after some runs of the same shapes by a captured graph."""
        settled = self._repeats >= _REPEATS
        if self._captured is None and self._captures and settled:
            # The plain runs before this one have done what TensorRT puts off to the first run.
            try:
                self._captured = self._capture()
            except TargetError as error:
                self.cuda_graph = self._captures = False
                warnings.warn(f"no CUDA graph: {error}", RuntimeWarning, stacklevel=2)
        if self._captured is not None:
            self._stream.launch(self._captured)
            return
        if self._ours or not settled:
            self.replayed = False
        self._enqueue()

    def _capture(self) -> CudaGraph:
        self._stream.begin_capture()
        try:
            self._enqueue()
        finally:
            captured = self._stream.end_capture()
        return captured

    def _enqueue(self) -> None:
        context = self._context
        if not context.execute_async_v3(self._stream.handle):
            raise self._failed("the run was refused")

    def _receive(self, count: int) -> dict[str, NDArray[np.float32]]:
        answers = {}
        for name in self._outputs:
            port = self._ports[name]
            answers[name] = port.array((count, *port.limit[1:]))
            if port.device is not None:
                self._stream.download(port.host, port.device, answers[name].nbytes)
        self._stream.wait()
        # copies: the next run writes into the same memory
        return {name: value.astype(np.float32) for name, value in answers.items()}

    def _upload(self, name: str, table: NDArray[Any]) -> _Table:
        if len(table) > self._limits[name][0]:
            rows = self._limits[name][0]
            raise TargetError(
                f"{self._bundle.path}: the bank has outgrown its engine: {name} has {len(table)} "
                f"rows, the engine takes {rows}. Build it again with a larger --bank-max: "
                f"vptkit build {self._bundle.path} --bank-max N"
            )
        memory = self._device.allocate(table.nbytes)
        staging = self._device.allocate_host(table.nbytes)
        np.frombuffer(staging.buffer, dtype=np.uint8)[:] = (
            np.ascontiguousarray(table).view(np.uint8).reshape(-1)
        )
        self._stream.upload(memory, staging, table.nbytes)
        self._stream.wait()
        return _Table(table.shape, memory)

    def _failed(self, what: str) -> TargetError:
        return TargetError(f"{self._bundle.path}: {what}: {reasons(self._logger)}")


def _deserialize(trt: Any, logger: Any, file: BinaryIO, plan: Path) -> tuple[Any, Any]:
    """(runtime, engine); the first must live as long as the second. `plan` is for messages."""
    try:
        runtime = trt.Runtime(logger)
    except (RuntimeError, TypeError) as error:  # TypeError: "factory function returned nullptr"
        raise MissingError(
            f"TensorRT {trt.__version__} starts no runtime here: {error}: {reasons(logger)}. What "
            "is wrong, and what mends it: vptkit doctor"
        ) from error
    # Mapped, not read: pages of a file can be dropped where the engine needs their memory.
    with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise TargetError(
            f"{plan}: TensorRT {trt.__version__} does not load the engine: {reasons(logger)}. "
            "Build it again: vptkit build BUNDLE --force"
        )
    return runtime, engine


def _signature(
    trt: Any, engine: Any, bundle: Bundle
) -> tuple[dict[str, np.dtype[Any]], dict[str, tuple[int, ...]], int]:
    """Tensor → type, tensor → largest shape, and the smallest batch.

    Raises:
        TargetError: the engine's tensors are not those that the manifest lists.
    """
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    listed = [*bundle.fed]
    if sorted(inputs) != sorted(listed) or set(names) - set(inputs) != set(bundle.outputs):
        raise TargetError(
            f"{bundle.path}: the engine has the tensors {names}, the manifest wants {listed} and "
            f"{', '.join(bundle.outputs)}. Build it again: vptkit build BUNDLE --force"
        )
    types = {name: nptype(engine.get_tensor_dtype(name)) for name in names}
    odd = [name for name, kind in types.items() if kind is None]
    if odd:
        raise TargetError(f"{bundle.path}: the engine's {odd[0]} has a type that numpy lacks")
    ranges = {name: _range(engine, name) for name in inputs}
    limits = {name: most for name, (_, most) in ranges.items()}
    batch = limits[bundle.input][0]
    for name in bundle.outputs:
        shape = tuple(engine.get_tensor_shape(name))
        limits[name] = tuple(batch if size == -1 else int(size) for size in shape)
    least = ranges[bundle.input][0][0]
    return {n: kind for n, kind in types.items() if kind is not None}, limits, least


def _range(engine: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The smallest and the largest shape of an input."""
    shape = tuple(int(size) for size in engine.get_tensor_shape(name))
    if -1 not in shape:
        return shape, shape
    least, _, most = engine.get_tensor_profile_shape(name, 0)
    return tuple(int(size) for size in least), tuple(int(size) for size in most)


def _port(device: Device, kind: np.dtype[Any], limit: tuple[int, ...]) -> _Port:
    size = int(np.prod(limit)) * kind.itemsize
    host = device.allocate_host(size)
    memory = None if device.gpu.integrated else device.allocate(size)
    view = np.frombuffer(host.buffer, dtype=np.uint8)
    return _Port(kind, limit, host, memory, view)
