"""The CUDA driver through ctypes: which GPU is there, memory, streams, events, graphs.

The driver's own library (libcuda.so.1) is all it takes: no toolkit, no torch, no cuda-python. What
it allocates and TensorRT's CUDA runtime meet in the device's primary context. Standard library only.
Signatures are those of cuda.h, where a versioned symbol (`_v2`) is the one that cuda.h names.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from vptkit.errors import MissingError, TargetError

__all__ = ["Device", "DeviceMemory", "Event", "Gpu", "HostMemory", "Stream", "open_device", "probe"]

LIBRARY = "libcuda.so.1"

# CUdevice_attribute
_CLOCK_KHZ, _SMS, _INTEGRATED, _CC_MAJOR, _CC_MINOR = 13, 16, 18, 75, 76
_PORTABLE, _MAPPED = 1, 2  # CU_MEMHOSTALLOC_*
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no implicit order with the legacy stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_*: other threads may allocate meanwhile

_HANDLE = POINTER(c_void_p)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (_HANDLE, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (_HANDLE,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (_HANDLE, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemHostGetDevicePointer_v2": (POINTER(c_uint64), c_void_p, c_uint),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (_HANDLE, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuEventCreate": (_HANDLE, c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, _HANDLE),
    "cuGraphInstantiateWithFlags": (_HANDLE, c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What the driver says about a device.

    Attributes:
        index: its number.
        name: such as "NVIDIA H200" or "Orin".
        capability: compute capability, (8, 7).
        memory_bytes: all of it; on an integrated GPU the board's.
        integrated: it shares its memory with the processor.
        sms: streaming multiprocessors in use.
        clock_mhz: the highest core clock.
        driver: the newest CUDA that the driver knows, (12, 6).
    """

    index: int
    name: str
    capability: tuple[int, int]
    memory_bytes: int
    integrated: bool
    sms: int
    clock_mhz: int
    driver: tuple[int, int]

    @property
    def cc(self) -> str:
        """Compute capability as NVIDIA writes it, "8.7"."""
        return "{}.{}".format(*self.capability)

    def to_json(self) -> dict[str, Any]:
        """As reports write it."""
        return {**asdict(self), "capability": self.cc, "driver": "{}.{}".format(*self.driver)}


def probe(index: int = 0) -> Gpu:
    """Ask the driver for a device; no context is made, and nothing but the driver is loaded.

    Raises:
        MissingError: no driver library, no device, or a driver that does not start.
    """
    try:
        call = _driver()
        count, device, version = c_int(), c_int(), c_int()
        call("cuInit", 0)
        call("cuDeviceGetCount", byref(count))
        if not 0 <= index < count.value:
            raise MissingError(f"no GPU {index}: the CUDA driver sees {count.value}")
        call("cuDeviceGet", byref(device), index)
        call("cuDriverGetVersion", byref(version))
        name, memory = ctypes.create_string_buffer(256), c_size_t()
        call("cuDeviceGetName", name, len(name), device)
        call("cuDeviceTotalMem_v2", byref(memory), device)
    except OSError as error:
        raise MissingError(
            f"no NVIDIA GPU can be used: {LIBRARY} does not load ({error}). It comes with the "
            "driver; in a container, the container must be started with access to the GPU."
        ) from error
    except TargetError as error:
        raise MissingError(f"no NVIDIA GPU can be used: {error}") from error
    about = {key: _attribute(call, key, device.value) for key in _ATTRIBUTES}
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(about[_CC_MAJOR], about[_CC_MINOR]),
        memory_bytes=memory.value,
        integrated=bool(about[_INTEGRATED]),
        sms=about[_SMS],
        clock_mhz=about[_CLOCK_KHZ] // 1000,
        driver=(version.value // 1000, version.value % 1000 // 10),
    )


_ATTRIBUTES = (_CLOCK_KHZ, _SMS, _INTEGRATED, _CC_MAJOR, _CC_MINOR)


def open_device(gpu: Gpu) -> Device:
    """Open a device: its primary context, which TensorRT works in too.

    Raises:
        TargetError: the driver failed, for example because the device is out of memory.
    """
    context = c_void_p()
    call = _driver()
    call("cuDevicePrimaryCtxRetain", byref(context), gpu.index)
    call.context = context
    device = Device(gpu, call, context)
    device.use()
    return device


class Device:
    """An opened device. What it gives out frees itself when nobody holds it any more."""

    def __init__(self, gpu: Gpu, call: _Driver, context: c_void_p) -> None:
        self.gpu = gpu
        self._call, self._context = call, context

    def use(self) -> None:
        """Make it the calling thread's device; every thread that works with it must."""
        self._call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> DeviceMemory:
        """Device memory of `size` bytes.

        Raises:
            TargetError: out of memory.
        """
        return DeviceMemory(self._call, size)

    def allocate_host(self, size: int) -> HostMemory:
        """Page-locked host memory that the device can address.

        Raises:
            TargetError: out of memory.
        """
        return HostMemory(self._call, size)

    def stream(self) -> Stream:
        """A new stream."""
        return Stream(self._call)

    def event(self) -> Event:
        """A new event that keeps its time."""
        return Event(self._call)


class DeviceMemory:
    """Bytes on the device.

    Attributes:
        address: device pointer.
        size: bytes.
    """

    def __init__(self, call: _Driver, size: int) -> None:
        pointer = c_uint64()
        call("cuMemAlloc_v2", byref(pointer), max(size, 1))
        self.address, self.size = pointer.value, size
        weakref.finalize(self, call.release, "cuMemFree_v2", pointer)


class HostMemory:
    """Page-locked bytes of the host.

    Attributes:
        address: the device's pointer to the same bytes.
        buffer: the bytes, of which `numpy.frombuffer` makes a view.
        size: bytes.
    """

    def __init__(self, call: _Driver, size: int) -> None:
        pointer, address = c_void_p(), c_uint64()
        call("cuMemHostAlloc", byref(pointer), max(size, 1), _PORTABLE | _MAPPED)
        if pointer.value is None:
            raise TargetError(f"the CUDA driver gave no page-locked memory ({size} bytes)")
        array = (ctypes.c_uint8 * size).from_address(pointer.value)
        self.buffer = memoryview(array)
        self.size, self._pointer = size, pointer
        # on the array, which a view of it keeps alive longer than this object
        weakref.finalize(array, call.release, "cuMemFreeHost", pointer)
        call("cuMemHostGetDevicePointer_v2", byref(address), pointer, 0)
        self.address = address.value

    @property
    def pointer(self) -> int:
        """The host's pointer."""
        return self._pointer.value or 0


class Stream:
    """Work in order. Everything but `wait` returns at once."""

    def __init__(self, call: _Driver) -> None:
        self._call, self._stream = call, c_void_p()
        call("cuStreamCreate", byref(self._stream), _NON_BLOCKING)
        weakref.finalize(self, call.release, "cuStreamDestroy_v2", self._stream)

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return self._stream.value or 0

    def upload(self, target: DeviceMemory, source: HostMemory, size: int) -> None:
        """Copy the first `size` bytes to the device."""
        self._call("cuMemcpyHtoDAsync_v2", target.address, source.pointer, size, self._stream)

    def download(self, target: HostMemory, source: DeviceMemory, size: int) -> None:
        """Copy the first `size` bytes to the host; they are there after `wait`."""
        self._call("cuMemcpyDtoHAsync_v2", target.pointer, source.address, size, self._stream)

    def record(self, event: Event) -> None:
        """Have the event take its time when everything before it is done."""
        self._call("cuEventRecord", event.handle, self._stream)

    def wait(self) -> None:
        """Block until all work is done.

        Raises:
            TargetError: some of the work failed.
        """
        self._call("cuStreamSynchronize", self._stream)

    def begin_capture(self) -> None:
        """From now on this thread's work on the stream is written down instead of done."""
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)

    def end_capture(self) -> CudaGraph:
        """Stop writing down.

        Raises:
            TargetError: something among the work cannot be captured.
        """
        graph = c_void_p()
        self._call("cuStreamEndCapture", self._stream, byref(graph))
        return CudaGraph(self._call, graph)

    def launch(self, graph: CudaGraph) -> None:
        """Do again what was written down, in one call."""
        self._call("cuGraphLaunch", graph.handle, self._stream)


class Event:
    """A point in a stream."""

    def __init__(self, call: _Driver) -> None:
        self._call, self.handle = call, c_void_p()
        call("cuEventCreate", byref(self.handle), 0)
        weakref.finalize(self, call.release, "cuEventDestroy_v2", self.handle)

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds from another event to this one; both must have happened."""
        ms = c_float()
        self._call("cuEventElapsedTime", byref(ms), earlier.handle, self.handle)
        return ms.value


class CudaGraph:
    """Captured work, ready to be launched again and again."""

    def __init__(self, call: _Driver, graph: c_void_p) -> None:
        self.handle = c_void_p()
        try:
            call("cuGraphInstantiateWithFlags", byref(self.handle), graph, 0)
        finally:
            call.release("cuGraphDestroy", graph)
        weakref.finalize(self, call.release, "cuGraphExecDestroy", self.handle)


class _Driver:
    """Calls of the driver that raise when they fail."""

    def __init__(self, library: Any) -> None:
        self._functions: dict[str, Any] = {}
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
            self._functions[name] = function
        library.cuGetErrorString.argtypes = (c_int, POINTER(c_char_p))
        self._describe = library.cuGetErrorString
        self.context = c_void_p()  # of the opened device

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call.

        Raises:
            TargetError: the driver answered with an error.
        """
        code = self._functions[name](*arguments)
        if code:
            text = c_char_p()
            self._describe(code, byref(text))
            meaning = (text.value or b"unknown error").decode(errors="replace")
            raise TargetError(f"the CUDA driver failed: {name}: {meaning} (error {code})")

    def release(self, name: str, handle: Any) -> None:
        """Give something back, from any thread; at the end of a process the driver may be gone."""
        self._functions["cuCtxPushCurrent_v2"](self.context)
        self._functions[name](handle)
        self._functions["cuCtxPopCurrent_v2"](byref(c_void_p()))


@cache
def _driver() -> _Driver:
    try:
        return _Driver(ctypes.CDLL(LIBRARY))
    except AttributeError as error:
        raise OSError(f"a driver older than CUDA 11.4: {error}") from error


def _attribute(call: _Driver, attribute: int, device: int) -> int:
    value = c_int()
    call("cuDeviceGetAttribute", byref(value), attribute, device)
    return value.value
