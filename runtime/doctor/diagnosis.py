"""What this machine can do with bundles, what is missing, and the command that mends it.

Libraries are asked in child processes (`library_probe`); the machine is read from files (`health`).
Nothing is changed, and no engine of a bundle is built. Unverified on a board: tested on file trees
and with answers of real and made-up libraries.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.devices.drivers.cuda import probe
from vptkit.devices.probes.jetson import detect_jetson
from vptkit.devices.probes.machine import detect_machine
from vptkit.errors import MissingError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.progress import SILENT
from vptkit.runtime.backends.engine_cache import (
    CACHE_VARIABLE,
    build_command,
    engine_folder,
    find_engine,
)
from vptkit.runtime.backends.selection import AUTO_ORDER, OPENVINO, TRT_LIBRARIES
from vptkit.runtime.backends.tensorrt_library import LIBRARIES

from .library_checks import (
    PROVIDERS,
    onnxruntime_checks,
    openvino_backends,
    openvino_checks,
    tensorrt_check,
)
from .library_probe import probe_library
from .machine_checks import Check, has_nvidia, machine_checks, package_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vptkit.formats.bundle import Bundle
    from vptkit.progress import Progress

    from .library_probe import Answer

    Ask = Callable[[Sequence[str]], Answer]

__all__ = ["Diagnosis", "examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found.

    Attributes:
        checks: one for each thing that was looked at.
        backends: those of BACKENDS that can run bundles here; with a bundle those that ran it
            (ort-tensorrt is not tried: it would build an engine, for minutes).
        machine: of `detect_machine`.
    """

    checks: tuple[Check, ...]
    backends: tuple[str, ...]
    machine: dict[str, Any]

    @property
    def ok(self) -> bool:
        """At least one backend can run bundles."""
        return bool(self.backends)

    def to_json(self) -> dict[str, Any]:
        """As `vptkit doctor --json` writes it."""
        return {
            "ok": self.ok,
            "backends": list(self.backends),
            "checks": [check.to_json() for check in self.checks],
            "machine": self.machine,
        }


def examine(
    path: Path | None = None,
    *,
    root: Path = Path("/"),
    inquire: Ask = probe_library,
    progress: Progress = SILENT,
) -> Diagnosis:
    """Examine this machine.

    Args:
        path: a bundle: is its engine there, and which backends run it?
        root: where files are looked for; tests pass a folder of their own.
        inquire: asks the libraries; see `library_probe`.
        progress: told of each library and backend that was asked.

    Raises:
        BundleError: not a bundle, or a damaged one.
    """
    bundle = None if path is None else open_bundle(path)
    machine, jetson = detect_machine(root), detect_jetson(root)
    gpu = machine["gpu"]
    # TensorRT-RTX is made for PCs and servers.
    libraries = ("tensorrt",) if jetson is not None else tuple(LIBRARIES)
    tried = () if bundle is None else AUTO_ORDER if gpu else ("cpu",)
    progress.total = steps = len(libraries) + 2 + len(tried)
    checks = list(machine_checks(machine, jetson, root, _folder(bundle)))
    answers: dict[str, Answer] = {}
    for library in (*libraries, "onnxruntime", "openvino"):
        answers[library] = inquire([library])
        progress.update()
    useful = gpu is not None or jetson is not None or has_nvidia(root)
    checks += [
        tensorrt_check(name, answers[name], jetson=jetson, gpu=gpu, root=root)
        for name in libraries
        if useful or answers[name].facts.get("installed", "version" in answers[name].facts)
    ]
    checks += onnxruntime_checks(answers["onnxruntime"], jetson)
    checks += openvino_checks(answers["openvino"], jetson)
    if bundle is None:
        backends = _promising(answers)
    else:
        checks += _engines(bundle, answers)
        opened = openvino_backends(answers["openvino"])
        progress.total = steps + len(opened)
        tried = (*tried, *opened)
        results = {name: _backend(name, bundle, inquire, progress) for name in tried}
        checks += results.values()
        backends = tuple(name for name, check in results.items() if check.state == "ok")
    checks += package_checks()
    return Diagnosis(checks=tuple(checks), backends=backends, machine=machine)


def _folder(bundle: Bundle | None) -> Path:
    """An existing folder on the disk that engines go to."""
    if bundle is not None:
        folder = engine_folder(bundle)
    else:
        folder = Path(os.environ.get(CACHE_VARIABLE) or ".")
    return next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()
    )


def _promising(answers: dict[str, Answer]) -> tuple[str, ...]:
    """Backends that have what they need, but for an engine."""
    found = []
    for backend, library in TRT_LIBRARIES.items():
        facts = answers[library].facts if library in answers else {}
        if facts.get("runtime") and answers[library].ended is None:
            found.append(backend)
    usable = answers["onnxruntime"].facts.get("usable", {})
    for name, provider in PROVIDERS.items():
        if provider in usable and usable[provider] is None:
            found.append(name)
    found += openvino_backends(answers["openvino"])
    return tuple(name for name in (*AUTO_ORDER, *OPENVINO) if name in found)


def _engines(bundle: Bundle, answers: dict[str, Answer]) -> Iterator[Check]:
    """Whether each TensorRT that is there has an engine."""
    try:
        gpu = probe()
    except MissingError:
        return
    for library, names in LIBRARIES.items():
        version = answers[library].facts.get("version") if library in answers else None
        if version is None:
            continue
        title = f"{names.title} engine"
        try:
            engine = find_engine(bundle, library=library, version=version, gpu=gpu)
        except VptkitError as error:
            fix = build_command(bundle, library)
            yield Check(name=title, state="missing", found=str(error), fix=fix)
        else:
            yield Check(name=title, state="ok", found=str(engine.path))


def _backend(name: str, bundle: Bundle, inquire: Ask, progress: Progress) -> Check:
    """Whether a backend runs the bundle, tried in a process of its own."""
    title = f"backend {name}"
    if name == "ort-tensorrt":
        progress.update()
        return Check(name=title, state="unknown", found="not tried: it would build an engine")
    answer = inquire(["backend", name, str(bundle.path)])
    progress.update()
    if answer.facts.get("runs"):
        return Check(name=title, state="ok", found=f"runs {bundle.path}")
    if "refused" in answer.facts:
        return Check(name=title, state="missing", found=str(answer.facts["refused"]))
    where = answer.facts.get("stage", "starting")
    return Check(name=title, state="unknown", found=f"{answer.ended}, while {where}")
