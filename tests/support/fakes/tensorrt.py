"""TensorRT's Python API over ONNX Runtime's CPU, for machines without a GPU (with libcuda.c).

Plans are the ONNX file and what the builder was told. Names and signatures are those of the real
bindings; tests/integration/test_trt_api.py holds them together. FAKE_TENSORRT (default 10.3.0) is the version.
"""

import ctypes
import enum
import json
import os
import weakref

import numpy as np
import onnxruntime

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")

_CUDA = ctypes.CDLL(os.environ.get("FAKE_LIBCUDA", "libcuda.so.1"))
_CUDA.fake_host_pointer.restype = ctypes.c_void_p
_CUDA.fake_host_pointer.argtypes = (ctypes.c_uint64,)
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_CUDA.fake_enqueue.argtypes = (ctypes.c_void_p, _CALLBACK, ctypes.c_void_p)


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class BuilderFlag(enum.IntEnum):
    FP16, INT8, TF32, BF16, FP8 = range(5)


class MemoryPoolType(enum.Enum):
    WORKSPACE, DLA_MANAGED_SRAM = range(2)


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class LayerInformationFormat(enum.Enum):
    ONELINE, JSON = range(2)


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity, msg):
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name, parent_phase, num_steps): ...

    def step_complete(self, phase_name, step): ...

    def phase_finish(self, phase_name): ...


class IProfiler:
    def report_layer_time(self, layer_name, ms):
        raise NotImplementedError


_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(float16)": DataType.HALF,
    "tensor(uint8)": DataType.UINT8,
    "tensor(int32)": DataType.INT32,
}
_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.UINT8: np.uint8,
    DataType.INT32: np.int32,
}


def _session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _dims(value):
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)


class ITensor:
    def __init__(self, value):
        self.name, self.shape, self.dtype = value.name, _dims(value), _TYPES[value.type]


class INetworkDefinition:
    def __init__(self):
        self._model, self._inputs, self._outputs = b"", [], []

    @property
    def num_inputs(self):
        return len(self._inputs)

    @property
    def num_outputs(self):
        return len(self._outputs)

    @property
    def num_layers(self):
        return 0

    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]


class ParserError:
    def __init__(self, message):
        self._message = message

    def desc(self):
        return self._message

    def node_name(self):
        return ""

    def node_operator(self):
        return ""


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._errors = network, []

    def parse_from_file(self, model):
        try:
            with open(model, "rb") as file:  # noqa: PTH123
                content = file.read()
            session = _session(content)
        except Exception as error:
            self._errors.append(ParserError(str(error)))
            return False
        self._network._model = content
        self._network._inputs = [ITensor(v) for v in session.get_inputs()]
        self._network._outputs = [ITensor(v) for v in session.get_outputs()]
        return True

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


class IOptimizationProfile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):  # noqa: A002
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, content=b""):
        self._content = bytes(content)

    def serialize(self):
        return IHostMemory(self._content + b".")


class IHostMemory(bytes):
    @property
    def nbytes(self):
        return len(self)


class IBuilderConfig:
    def __init__(self):
        self._profiles, self._flags, self._cache = [], set(), None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.progress_monitor = None

    def set_memory_pool_limit(self, pool, pool_size):
        assert isinstance(pool, MemoryPoolType)

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def get_flag(self, flag):
        return flag in self._flags

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class Builder:
    def __init__(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        free = [t.name for t in network._inputs if -1 in t.shape]
        shapes = config._profiles[0]._shapes if config._profiles else {}
        if set(free) - set(shapes):
            message = f"no optimization profile for {free}"
            self._logger.log(ILogger.ERROR, message)
            return None
        monitor = config.progress_monitor
        if monitor is not None:
            monitor.phase_start("Building", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building", step):
                    return None
            monitor.phase_finish("Building")
        head = json.dumps({"version": __version__, "shapes": shapes}).encode()
        return IHostMemory(len(head).to_bytes(4, "little") + head + network._model)


_loggers = weakref.WeakSet()  # of all runtimes; the first one hears everything


class Runtime:
    _first = None

    def __init__(self, logger):
        self._kept = logger
        if not _loggers:
            Runtime._first = weakref.ref(logger)
        _loggers.add(logger)

    def _complain(self, message):
        Runtime._first().log(ILogger.ERROR, message)  # fails if it is gone: the real one crashes

    def deserialize_cuda_engine(self, serialized_engine):
        content = bytes(serialized_engine)
        size = int.from_bytes(content[:4], "little")
        head = json.loads(content[4 : 4 + size])
        if head["version"] != __version__:
            self._complain("the engine plan file is not compatible")
            return None
        engine = ICudaEngine(content[4 + size :], head["shapes"])
        engine._runtime = self
        return engine


class EngineInspector:
    def __init__(self, engine):
        self._engine = engine

    def get_engine_information(self, format):  # noqa: A002
        import onnx

        def tensor(name):
            return {"Name": name, "Dimensions": [], "Format/Datatype": "Row major linear FP32"}

        layers = [
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": [tensor(name) for name in node.input],
                "Outputs": [tensor(name) for name in node.output],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for node in onnx.load_from_string(self._engine._model).graph.node
        ]
        return json.dumps({"Layers": layers, "Bindings": []})


class ICudaEngine:
    def __init__(self, model, shapes):
        self._model, self._profile = model, shapes
        self._session = _session(model)
        self._inputs = [value.name for value in self._session.get_inputs()]
        values = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._tensors = {value.name: ITensor(value) for value in values}

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    @property
    def num_layers(self):
        return 1

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return self._tensors[name].dtype

    def get_tensor_shape(self, name):
        return self._tensors[name].shape

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return [tuple(shape) for shape in self._profile[name]]

    def create_engine_inspector(self):
        return EngineInspector(self)

    def create_execution_context(self):
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._shapes, self._addresses, self._kept = engine, {}, {}, []
        self.profiler = None

    def set_input_shape(self, name, shape):
        limits = self._engine._profile.get(name)
        if limits is None:
            legal = tuple(shape) == self._engine.get_tensor_shape(name)
        else:
            legal = all(a <= s <= b for a, s, b in zip(limits[0], shape, limits[2], strict=True))
        if legal:
            self._shapes[name] = tuple(shape)
        else:
            self._engine._runtime._complain(f"{name}: illegal shape")
        return legal

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        engine, shapes, addresses = self._engine, dict(self._shapes), dict(self._addresses)
        if set(addresses) != set(engine._tensors) or set(shapes) != set(engine._inputs):
            return False

        def array(name, shape):
            kind = np.dtype(_NUMPY[engine.get_tensor_dtype(name)])
            size = int(np.prod(shape)) * kind.itemsize
            pointer = _CUDA.fake_host_pointer(addresses[name])
            content = (ctypes.c_uint8 * size).from_address(pointer)
            return np.frombuffer(content, dtype=kind).reshape(shape)

        @_CALLBACK
        def work(_):
            feed = {name: array(name, shapes[name]) for name in engine._inputs}
            names = [name for name in engine._tensors if name not in engine._inputs]
            for name, value in zip(names, engine._session.run(names, feed), strict=True):
                array(name, value.shape)[...] = value

        self._kept.append(work)  # a captured graph may call it as long as the context lives
        _CUDA.fake_enqueue(stream_handle, work, None)
        if self.profiler is not None:
            text = EngineInspector(engine).get_engine_information(LayerInformationFormat.JSON)
            for number, layer in enumerate(json.loads(text)["Layers"], 1):
                self.profiler.report_layer_time(layer["Name"], number / 1000)
        return True
