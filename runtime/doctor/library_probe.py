"""Questions that may crash or hang, asked in a process of their own.

Broken installations of TensorRT, ONNX Runtime or OpenVINO end the process that loads them. The child says
what it found line by line, so that its end tells how far it came. This module with QUESTION
[ARGUMENT]... is the child:

tensorrt, tensorrt_rtx     is it there, in which version, and does a runtime start on the GPU
onnxruntime                its version, the providers that it lists, and those that ran a product
openvino                   its version, the devices that it finds, and those that ran a product
backend NAME BUNDLE        does a backend run a bundle
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError
from vptkit.python_child import python_command, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Say = Callable[..., None]

__all__ = ["Answer", "main", "probe_library"]

_COMMAND = python_command("vptkit.runtime.doctor.library_probe")
# y = x @ x for float32 [2, 2], as an ONNX file: there is no package that could write one here.
_PRODUCT = bytes.fromhex(
    "08073a400a110a01780a017812017922064d61744d756c1201675a130a0178120e0a0c0801"
    "12080a0208020a02080262130a0179120e0a0c080112080a0208020a02080242040a00100d"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a child said.

    Attributes:
        facts: everything it said, later words over earlier ones.
        ended: how it ended before it was through, or None.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None


def probe_library(
    question: Sequence[str], *, seconds: float = 60.0, command: Sequence[str] = _COMMAND
) -> Answer:
    """Ask a child process; whatever happens to it is an answer too."""
    try:
        done = run_python([*command, *question], seconds=seconds)
    except TimeoutExpired as error:
        return Answer(facts=_merged(error.stdout or b""), ended=f"no answer in {seconds:g} s")
    facts = _merged(done.stdout)
    if done.returncode == 0:
        return Answer(facts=facts)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Answer(facts=facts, ended=f"the process ended with {name}")
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    return Answer(facts=facts, ended=f"exit status {done.returncode}: {last}")


def _merged(lines: bytes) -> dict[str, Any]:
    """Facts of all lines; the last one may be cut off."""
    facts: dict[str, Any] = {}
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):
            facts |= json.loads(line)
    return facts


def main() -> None:
    """Answer the question on the command line."""
    # Libraries print to standard output: that becomes standard error, a copy stays ours.
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**facts: Any) -> None:
        print(json.dumps(facts), file=ours, flush=True)

    question, *arguments = sys.argv[1:]
    if question == "backend":
        _backend(say, *arguments)
    elif question == "onnxruntime":
        _onnxruntime(say)
    elif question == "openvino":
        _openvino(say)
    else:
        _tensorrt(say, question)


def _tensorrt(say: Say, library: str) -> None:
    from vptkit.devices.drivers.cuda import probe
    from vptkit.runtime.backends.tensorrt_library import LIBRARIES, find_module, the_logger

    say(stage="loading it")
    try:
        trt = find_module(library)
    except VptkitError as error:
        there = any(importlib.util.find_spec(name) for name in LIBRARIES[library].modules)
        say(missing=str(error), installed=there)
        return
    say(version=trt.__version__, file=trt.__file__)
    try:
        probe()
    except VptkitError as error:
        say(gpu=str(error))
        return
    say(stage="starting a runtime")
    logger = the_logger(trt)
    try:
        runtime = trt.Runtime(logger)
    except Exception as error:  # whatever its bindings raise is the answer
        say(failed="; ".join([str(error), *logger.errors]))
        return
    say(runtime=runtime is not None, errors=logger.errors)


def _onnxruntime(say: Say) -> None:
    say(stage="loading it")
    try:
        library = importlib.import_module("onnxruntime")
    except ImportError as error:
        say(missing=str(error), installed=not isinstance(error, ModuleNotFoundError))
        return
    getattr(library, "disable_telemetry_events", lambda: None)()  # as `onnxruntime_library` does
    providers = library.get_available_providers()
    say(version=library.__version__, file=library.__file__, providers=providers)
    usable: dict[str, str | None] = {}
    for name in ("CPU", "CUDA", "Tensorrt"):
        provider = f"{name}ExecutionProvider"
        if provider in providers:
            say(stage=f"a product on {provider}")
            usable[provider] = _product(library, provider)
            say(usable=usable)


def _product(library: Any, provider: str) -> str | None:
    """Why a provider does not multiply two matrices, or None if it does."""
    import numpy as np

    try:
        options = library.SessionOptions()
        options.log_severity_level = 4
        session = library.InferenceSession(
            _PRODUCT, options, providers=[provider], enable_fallback=0
        )
        if session.get_providers()[0] != provider:
            return "it did not start (libraries missing, or of another version)"
        value = np.array([[1, 2], [3, 4]], dtype=np.float32)
        (found,) = session.run(["y"], {"x": value})
    except Exception as error:  # its exceptions share no base
        return str(error).strip().splitlines()[0]
    return None if np.array_equal(found, value @ value) else f"it multiplied wrongly: {found}"


def _openvino(say: Say) -> None:
    say(stage="loading it")
    try:
        from vptkit.runtime.backends.openvino_graph import openvino, version
    except ImportError as error:
        say(missing=str(error), installed=not isinstance(error, ModuleNotFoundError))
        return
    say(version=version(), file=openvino.__file__, stage="looking for devices")
    core = openvino.Core()
    devices: dict[str, dict[str, Any]] = {}
    for name in map(str, core.available_devices):
        say(stage=f"a product on {name}")
        devices[name] = {"wrong": _product_on_device(core, name)}
        if devices[name]["wrong"] is None:
            types = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
            devices[name]["types"] = [t for t in ("FP32", "FP16", "BF16", "INT8") if t in types]
            devices[name]["name"] = str(core.get_property(name, "FULL_DEVICE_NAME")).strip()
        say(devices=devices)


def _product_on_device(core: Any, device: str) -> str | None:
    """Why a device of OpenVINO does not multiply two matrices, or None if it does."""
    import numpy as np

    try:
        graph = core.compile_model(core.read_model(_PRODUCT), device)
        value = np.array([[1, 2], [3, 4]], dtype=np.float32)
        found = graph([value])[0]
    except Exception as error:  # its exceptions share no base
        return " ".join(str(error).split())
    return None if np.array_equal(found, value @ value) else f"it multiplied wrongly: {found}"


def _backend(say: Say, name: str, bundle: str) -> None:
    from vptkit.runtime.measure.timing import random_images
    from vptkit.runtime.session.factory import open_session

    say(stage="opening it")
    try:
        session = open_session(bundle, name)
        say(stage="running it", versions=dict(session.versions))
        images = random_images(session.bundle.batch or 1, session.bundle.preprocess.size)
        session.answers(images, session.bundle.adapter_names[0])
    except VptkitError as error:
        say(refused=str(error), exit_code=error.exit_code)
        return
    say(runs=True)


if __name__ == "__main__":
    main()
