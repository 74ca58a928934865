"""What TensorRT, ONNX Runtime and OpenVINO answered, judged: there, broken, hidden, or known for trouble."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vptkit.devices.boards.jetpacks import find_jetpack, troubles
from vptkit.runtime.backends.install_hints import mend
from vptkit.runtime.backends.selection import OPENVINO
from vptkit.runtime.backends.tensorrt_library import LIBRARIES

from .machine_checks import Check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vptkit.devices.probes.jetson import Jetson

    from .library_probe import Answer

__all__ = [
    "PROVIDERS",
    "onnxruntime_checks",
    "openvino_backends",
    "openvino_checks",
    "tensorrt_check",
]

# Backend → provider of ONNX Runtime.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}


def tensorrt_check(
    library: str,
    answer: Answer,
    *,
    jetson: Jetson | None,
    gpu: dict[str, Any] | None,
    root: Path,
) -> Check:
    """Judge a TensorRT.

    Args:
        library: of `tensorrt_library.LIBRARIES`.
        answer: to the question of that name.
        jetson: the board, if it is one.
        gpu: `Gpu.to_json` of the GPU, if one answers.
        root: where the system's Python packages are looked for.
    """
    name, backend, facts = LIBRARIES[library].title, LIBRARIES[library].backend, answer.facts
    why = _broken(answer)
    if why is not None:
        there = f"{facts['version']} is there, but: " if "version" in facts else ""
        fix = _again(library, jetson, gpu)
        return Check(name=name, state="missing", found=f"{there}{why}", fix=fix)
    if "version" not in facts:
        fix = mend(backend, jetson=jetson is not None)
        if library == "tensorrt":
            if jetson is None:
                fix = f"pip install {_wheel(gpu)}"
            fix = _hidden(root) or fix
        return Check(name=name, state="missing", found="not in this Python", fix=fix)
    version = str(facts["version"])
    if "gpu" in facts:
        return Check(name=name, state="warning", found=f"{version}; no GPU to run engines on")
    cc = None if gpu is None else gpu["capability"]
    known = troubles(backend, version=version, cc=cc)
    if known:
        texts = "; ".join(trouble.text for trouble in known)
        return Check(name=name, state="warning", found=f"{version}: {texts}")
    row = find_jetpack(jetson.jetpack) if jetson is not None and jetson.jetpack else None
    beside = "" if row is None else f" (this JetPack brings {row.tensorrt})"
    return Check(name=name, state="ok", found=f"{version}, a runtime starts{beside}")


def _broken(answer: Answer) -> str | None:
    """Why a library that is there does not work, or None."""
    facts = answer.facts
    if answer.ended is not None:
        return f"{answer.ended}, while {facts.get('stage', 'it started')}"
    if "version" not in facts and facts.get("installed"):
        return f"it does not load: {facts['missing']}"
    return facts.get("failed")


def _again(library: str, jetson: Jetson | None, gpu: dict[str, Any] | None) -> str:
    """The command that installs a broken TensorRT again."""
    if jetson is not None:
        return "sudo apt install --reinstall $(dpkg -l | awk '/^ii.*nvinfer/ {print $2}')"
    rtx = "tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs"
    return f"pip install --force-reinstall {_wheel(gpu) if library == 'tensorrt' else rtx}"


def _wheel(gpu: dict[str, Any] | None) -> str:
    """TensorRT's package for the CUDA that the driver knows; the plain one is for CUDA 13."""
    for_12 = gpu is not None and gpu["driver"].startswith("12.")
    return "tensorrt-cu12" if for_12 else "tensorrt"


def _hidden(root: Path) -> str | None:
    """How to see the TensorRT that the system's Python has, if this one does not."""
    for module in sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt")):
        python = module.parts[-3]
        ours = python in ("python3", f"python3.{sys.version_info.minor}")
        if ours and sys.base_prefix == "/usr":
            if sys.prefix == sys.base_prefix:
                return None  # it is the system's Python
            return (
                "sed -i 's/^include-system-site-packages = false/include-system-site-packages = "
                f"true/' {sys.prefix}/pyvenv.cfg (the system's Python has it)"
            )
        return (
            f"make the environment anew with {python}, which has it: "
            f"/usr/bin/{python} -m venv --system-site-packages FOLDER"
        )
    return None


def _missing(name: str, answer: Answer, absent: str, fix: str, again: str) -> Check:
    """Of a library that told no version: it is absent, which `fix` mends, or broken: `again`."""
    if answer.ended is None and not answer.facts.get("installed"):
        return Check(name=name, state="missing", found=absent, fix=fix)
    found = f"it does not load: {answer.ended or answer.facts['missing']}"
    return Check(name=name, state="missing", found=found, fix=again)


def onnxruntime_checks(answer: Answer, jetson: Jetson | None) -> Iterator[Check]:
    """Judge ONNX Runtime, and each of its providers that could run bundles."""
    name, facts = "ONNX Runtime", answer.facts
    fix = mend("onnxruntime", jetson=jetson is not None)
    if "version" not in facts:
        again = f"pip uninstall -y onnxruntime onnxruntime-gpu && {fix}"
        yield _missing(name, answer, "not in this Python", fix, again)
        return
    listed = ", ".join(
        provider.removesuffix("ExecutionProvider") for provider in facts["providers"]
    )
    yield Check(name=name, state="ok", found=f"{facts['version']}, built with {listed}")
    usable = facts.get("usable", {})
    for provider in PROVIDERS.values():
        if provider not in facts["providers"]:
            continue
        short = f"ONNX Runtime {provider.removesuffix('ExecutionProvider')}"
        if provider in usable and usable[provider] is None:
            yield Check(name=short, state="ok", found="multiplied two matrices")
            continue
        hint = (
            fix
            if provider.startswith("CPU")
            else mend("onnxruntime-gpu", jetson=jetson is not None)
        )
        why = usable.get(provider) or answer.ended or "it was not asked"
        yield Check(name=short, state="missing", found=f"listed, but: {why}", fix=hint)


def openvino_checks(answer: Answer, jetson: Jetson | None) -> Iterator[Check]:
    """Judge OpenVINO, and each device that it finds. Nobody who does not name it needs it."""
    name, facts = "OpenVINO", answer.facts
    fix = mend("openvino", jetson=jetson is not None)
    if "version" not in facts:
        absent = "not in this Python; only for --backend openvino"
        yield _missing(name, answer, absent, fix, "pip install --force-reinstall openvino")
        return
    devices: dict[str, dict[str, Any]] = facts.get("devices", {})
    found = f"{facts['version']}, finds {', '.join(devices) or 'no device'}"
    if answer.ended is not None:
        why = f"{found}, but: {answer.ended}, while {facts.get('stage', 'it started')}"
        yield Check(name=name, state="warning", found=why)
    else:
        yield Check(name=name, state="ok" if devices else "warning", found=found)
    for device, known in devices.items():
        if known["wrong"] is None:
            found = f"{known['name']}: multiplied two matrices; fast in {', '.join(known['types'])}"
            yield Check(name=f"OpenVINO {device}", state="ok", found=found)
        else:
            found = f"found, but: {known['wrong']}"
            yield Check(name=f"OpenVINO {device}", state="missing", found=found)


def openvino_backends(answer: Answer) -> list[str]:
    """The backends whose device multiplied two matrices, and has the type that they compute in."""
    devices: dict[str, dict[str, Any]] = answer.facts.get("devices", {})
    able: dict[str, set[str]] = {}
    for device, known in devices.items():
        if known["wrong"] is None:
            able.setdefault(device.partition(".")[0], set()).update(known["types"])
    return [
        backend
        for backend, (device, bf16) in OPENVINO.items()
        if device in able and (not bf16 or "BF16" in able[device])
    ]
